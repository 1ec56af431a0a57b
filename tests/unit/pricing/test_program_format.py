"""The canonical text of a program."""

from hashlib import sha256

from msgspec.structs import replace

from pricing import format_program, parse_program
from pricing.language.format import format_definition
from tests.unit.pricing.programs import GRADUATED, charge

CANONICAL = """\
id = "everything"
currency = "CNY"
description = "One of \\"each\\"."
not_charged = ["reasoning_tokens"]

[defaults]
cached_tokens = 0
mode = "normal"
express = false

[values]
mode = ["normal", "thinking"]

[[charges]]
name = "input"
meter = "input_tokens - cached_tokens"
free = 1000
tiering = "volume"
tier_by = "input_tokens"
tiers = [
  { up_to = 32_000, price = 0.8 },
  { price = 1.2 },
]
per = 1_000_000

[[charges]]
name = "cached"
meter = "cached_tokens"
tiering = "graduated"
tier_after = "month_tokens"
tiers = [
  { up_to = 1_000_000, price = 0.2 },
  { price = 0.1 },
]
per = 1_000_000

[[charges]]
name = "output"
meter = "output_tokens"
when = "output_tokens > 0"
prices = [
  { when = "mode == 'thinking'", price = 6 },
  { price = 3 },
]
per = 1_000_000

[[charges]]
name = "request"
meter = "1"
price = 0.000001

[[adjustments]]
name = "express"
when = "express"
factor = 1.5

[[adjustments]]
name = "minimum"
minimum = 0.01

[rounding]
mode = "half_even"
quantum = 0.0001
"""


def test_canonical_text_is_its_own_canonical_text():
    assert format_program(parse_program(CANONICAL)) == CANONICAL


def test_layout_and_comments_do_not_matter_to_the_tree_but_do_to_the_digest():
    other = parse_program("# mine\n" + CANONICAL.replace("factor = 1.5", "factor = '1.50'  # half more"))

    assert parse_program(CANONICAL).definition == other.definition
    assert format_program(other) == CANONICAL
    assert parse_program(CANONICAL).digest != other.digest
    assert sha256(other.text.encode()).hexdigest() == other.digest


def test_tiers_as_tables_and_tiers_in_a_line_are_the_same():
    tables = """
    meter = "input_tokens"
    per = 1000
    tiering = "graduated"
    [[charges.tiers]]
    up_to = 1000
    price = 3
    [[charges.tiers]]
    up_to = 5000
    price = 2
    [[charges.tiers]]
    price = 1
    """

    assert charge(GRADUATED).definition == charge(tables).definition


def test_the_defaults_of_the_language_are_spelled_out():
    text = format_program(charge('meter = "a"\nprice = "1.50"\nper = 1'))

    assert 'price = 1.5\n\n[rounding]\nmode = "up"\nquantum = "microcent"\n' in text


def test_names_of_any_characters_survive():
    name = 'tab\t quote" back\\slash \u2028 nul\x00 delete\x7f 中文'
    plain = charge('meter = "a"\nprice = 1')
    renamed = replace(plain.definition, charges=(replace(plain.charges[0], name=name),))

    assert name == parse_program(format_definition(renamed)).charges[0].name
