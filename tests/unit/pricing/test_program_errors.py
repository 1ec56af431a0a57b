"""Every mistake in a program is told with its line and column. In the texts below ‸ stands where it must point."""

import pytest

from pricing import ProgramError, parse_program

HEAD = 'id = "p"\ncurrency = "USD"\n'
CHARGE = '[[charges]]\nname = "c"\nmeter = "a"\n'
GOOD = HEAD + CHARGE + "price = 1\n"
VOLUME = HEAD + CHARGE + 'tiering = "volume"\n'
COMPARED = GOOD + "when = \"m == 'x'\"\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # Not TOML at all.
        ('id = "p"\ncurrency ‸"USD"', "Expected '=' after a key"),
        ('id = "p‸', "before the end"),
        # The head.
        ("‸" + HEAD, "a program needs a charge"),
        ("‸" + GOOD.replace('id = "p"\n', ""), "'id' is missing here"),
        (GOOD.replace('"p"', '‸"a b"'), "'id' must be letters"),
        (GOOD.replace('"p"', "‸7"), "'id' must be a text"),
        (GOOD.replace('"USD"', '‸"usd"'), "three capital letters"),
        ("‸prize = 1\n" + GOOD, "unknown key 'prize'; known here are id, currency"),
        ('not_charged = ["b", ‸"a"]\n' + GOOD, "'a' is read by the program"),
        ('not_charged = [‸"b c"]\n' + GOOD, "cannot be a usage key"),
        # Charges.
        (HEAD + "charges = ‸1", "'charges' must be a list of tables"),
        (HEAD + '‸[[charges]]\nname = "c"\nprice = 1', "'meter' is missing here"),
        (HEAD + "‸" + CHARGE, "a charge has either 'price'"),
        (GOOD + "‸" + CHARGE.replace('"c"', '"d"') + "price = 1\ntiers = []", "a charge has either 'price'"),
        (GOOD + CHARGE.replace('"c"', '‸"c"') + "price = 1", "there are two lines named 'c'"),
        (GOOD + "‸pirce = 2", "unknown key 'pirce'"),
        (GOOD + "per = ‸0", "'per' must be above zero"),
        (GOOD + 'tier_by = ‸"a"', "'tier_by' needs 'tiers'"),
        (HEAD + CHARGE + "price = ‸-1", "zero or more"),
        (HEAD + CHARGE + "price = ‸nan", "finite"),
        (HEAD + CHARGE + "price = ‸1e99999999999999999999", "finite"),
        (HEAD + CHARGE + "price = ‸1e31", "more than 30 digits"),
        (HEAD + CHARGE + "price = ‸1e-31", "more than 30 digits"),
        (HEAD + CHARGE + "price = ‸true", "must be a number"),
        (HEAD + CHARGE + 'price = ‸"1 USD"', "must be a number"),
        (HEAD + CHARGE + "price = ‸2026-01-01", "must be a number"),
        (HEAD + CHARGE + "price = ‸[1]", "must be a number"),
        # Expressions: the very character, unless the string has escapes.
        (GOOD.replace('"a"', '"a ‸% 2"'), "'%' has no meaning"),
        (GOOD.replace('"a"', '"""\na +\n  b / ‸c"""'), "only a number above zero"),
        (GOOD.replace('"a"', "'a ‸b'"), "unexpected 'b'"),
        (GOOD.replace('"a"', '‸"a \\u0062"'), "unexpected 'b'"),
        (GOOD.replace('"a"', "‸3"), "must be an expression in quotes"),
        (GOOD + "when = \"b == 'x' and ‸b > 1\"", "'b' is a number here, but a text before"),
        (GOOD + 'when = "‸a"', "'a' is a flag here, but a number before"),
        # Tiers and cases.
        (HEAD + CHARGE + 'tiering = ‸"steps"\ntiers = [{price = 1}]', "one of graduated, volume"),
        (HEAD + "‸" + CHARGE + "tiers = [{price = 1}]", "'tiering' is missing here"),
        (VOLUME + "tiers = ‸[]", "at least one tier"),
        (VOLUME + "tiers = [{up_to = 5, price = 1}, {up_to = ‸5, price = 1}]", "tiers must rise"),
        (VOLUME + "tiers = [{price = 1}, ‸{price = 1}]", "no tier comes after"),
        (VOLUME + "tiers = [{‸upto = 5, price = 1}]", "unknown key 'upto'"),
        (VOLUME + "tiers = [\n  # one\n  ‸{up_to = 5},\n]", "'price' is missing here"),
        (VOLUME + 'tier_after = ‸"a"\ntiers = [{price = 1}]', "for graduated tiers"),
        (HEAD + CHARGE + 'tiering = "graduated"\ntier_by = ‸"a"\ntiers = [{price = 1}]', "for volume tiers"),
        (VOLUME + "[[charges.tiers]]\nup_to = 1\nprice = 1\n[[charges.tiers]]\nprice = ‸-2", "zero or more"),
        (HEAD + CHARGE + "prices = [{price = 1}, ‸{price = 2}]", "no case comes after"),
        (HEAD + CHARGE + "prices = ‸[]", "at least one case"),
        (HEAD + CHARGE + 'prices = [{when = "a > ‸", price = 1}]', "needed here, not the end"),
        # Adjustments, rounding, defaults, values.
        (GOOD + '‸[[adjustments]]\nname = "x"', "either 'factor'"),
        (GOOD + '‸[[adjustments]]\nname = "x"\nfactor = 1\nminimum = 1', "either 'factor'"),
        (GOOD + '[[adjustments]]\nname = ‸"c"\nfactor = 1', "two lines named 'c'"),
        (GOOD + '[rounding]\nmode = ‸"nearest"', "one of up, down"),
        (GOOD + "[rounding]\nquantum = ‸0.000000001", "whole microcents"),
        (GOOD + '[rounding]\nquantum = ‸"dollar"', "must be a number"),
        ("rounding = ‸1\n" + GOOD, "'rounding' must be a table"),
        (GOOD + "[defaults]\n‸aa = 0", "no expression of the program reads 'aa'"),
        (GOOD + "[defaults]\na = ‸true", "must be a number"),
        (COMPARED + "[defaults]\nm = ‸1", "its default must be one"),
        (GOOD + 'when = "f"\n[defaults]\nf = ‸1', "its default must be one"),
        (GOOD + '[values]\na = ‸["x"]', "'a' is not compared with texts"),
        (COMPARED + "[values]\nm = ‸[]", "a list of texts"),
        (COMPARED + "[values]\nm = ‸['x', 'x']", "names a text twice"),
        (COMPARED + "[defaults]\nm = ‸'y'\n[values]\nm = ['x']", "is not among its values"),
        # Other ways to write TOML.
        (HEAD + "charges = [{name = 'c', meter = 'a', price = ‸-1}]", "zero or more"),
        (HEAD + "charges = [{name = 'c', meter = 'a', 'per' = ‸{x = 1}, price = 1}]", "must be a number"),
        ("rounding.mode = ‸'x'\n" + GOOD, "one of up, down"),
        (GOOD.replace("\n", "\r\n") + "per = ‸0", "'per' must be above zero"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_column(text, message):
    before = text[: text.index("‸")]

    with pytest.raises(ProgramError) as refused:
        parse_program(text.replace("‸", ""))

    error = refused.value
    assert message in error.message
    assert (before.count("\n") + 1, len(before) - before.rfind("\n")) == (error.line, error.column)
    assert str(error).startswith(f"line {error.line}, column {error.column}: ")


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 5000,
        "a = " + "9" * 5000,
        "a" * 300_000,
        GOOD + "# \ud800",
        HEAD + "".join(f'[[charges]]\nname = "{n}"\nmeter = "a"\nprice = 1\nper = {10**20 + n}\n' for n in range(200)),
        HEAD + '[[charges]]\nname = "c"\nmeter = "a"\nprice = 1\n'.replace('"c"', '"{}"') * 300,
    ],
    ids=["deep", "long number", "long text", "surrogate", "denominator", "many charges"],
)
def test_a_program_made_to_exhaust_the_parser_is_refused(text):
    with pytest.raises(ProgramError):
        parse_program(text)
