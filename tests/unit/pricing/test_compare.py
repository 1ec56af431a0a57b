"""How far prices move between two programs, and which moves are jumps."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings

from pricing import Program
from pricing.compare import Jump, jumps, unit_price_jumps
from tests.strategies_pricing import programs
from tests.unit.pricing.programs import charge, program

LIMIT = Decimal(3)


def flat(price: str, *, name: str = "input", meter: str = "input_tokens", per: str = "1_000_000") -> str:
    return f'[[charges]]\nname = "{name}"\nmeter = "{meter}"\nprice = {price}\nper = {per}\n'


def jump_names(before: Program, after: Program, limit: Decimal = LIMIT) -> list[str]:
    return [each.charge for each in jumps(before, after, limit)]


@pytest.mark.parametrize(
    ("before", "after", "is_jump"),
    [
        ("1", "3", False),
        ("1", "3.000001", True),
        ("3", "1", False),
        ("3.000001", "1", True),
        ("0.15", "0.15", False),
        ("0", "0", False),
        ("0", "0.15", True),
        ("0.15", "0", True),
    ],
)
def test_a_unit_price_jumps_when_it_becomes_more_than_the_limit_times_as_high_or_as_low(before, after, is_jump):
    found = jumps(program(flat(before)), program(flat(after)), LIMIT)

    assert is_jump == ("input" in [each.charge for each in found])
    assert is_jump or found == []


@pytest.mark.money_bug(37)
def test_a_price_per_million_written_as_one_per_thousand_is_a_jump_of_a_thousand():
    found = jumps(program(flat("0.15")), program(flat("0.15", per="1000")), LIMIT)

    assert Jump("input", Fraction(15, 10**8), Fraction(15, 10**5)) == found[0]
    assert found[0].factor == 1000


def test_a_factor_is_one_where_nothing_changes_and_none_where_free_ends():
    (same,) = unit_price_jumps(program(flat("0")), program(flat("0")))
    (no_longer_free,) = unit_price_jumps(program(flat("0")), program(flat("1")))

    assert same.factor == 1
    assert no_longer_free.factor is None


def test_tiers_are_compared_on_each_stretch_where_neither_price_changes():
    old = charge('meter = "t"\ntiering = "graduated"\ntiers = [{ up_to = 10, price = 3 }, { price = 2 }]')
    new = charge('meter = "t"\ntiering = "graduated"\ntiers = [{ up_to = 20, price = 4 }, { price = 1 }]')

    assert [(each.charge, each.before, each.after) for each in unit_price_jumps(old, new)] == [
        ("c, up to 10", 3, 4),
        ("c, up to 20", 2, 4),
        ("c, above 20", 2, 1),
    ]


def test_tiers_that_end_have_no_price_above_to_compare():
    old = charge('meter = "t"\ntiering = "volume"\ntiers = [{ up_to = 10, price = 3 }]')
    new = charge('meter = "t"\nprice = 4')

    assert [(each.charge, each.before, each.after) for each in unit_price_jumps(old, new)] == [("c, up to 10", 3, 4)]


def test_a_flat_price_stands_for_every_case_and_cases_match_by_their_conditions():
    flat_price = charge('meter = "t"\nprice = 3')
    cases = charge('meter = "t"\nprices = [{ when = "m == \'x\'", price = 6 }, { price = 3 }]')
    swapped = charge('meter = "t"\nprices = [{ when = "m == \'y\'", price = 1 }, { price = 5 }]')

    def found(before, after):
        return [(each.charge, each.before, each.after) for each in unit_price_jumps(before, after)]

    assert found(flat_price, cases) == [("c, m == 'x'", 3, 6), ("c, otherwise", 3, 3)]
    assert found(cases, flat_price) == [("c, m == 'x'", 6, 3), ("c, otherwise", 3, 3)]
    assert found(cases, swapped) == [("c, otherwise", 3, 5)]


@pytest.mark.parametrize(
    "after",
    [
        flat("15", name="prompt"),
        flat("0.15", meter="input_tokens * 100"),
        flat("0.15") + '[[adjustments]]\nname = "x"\nfactor = 100\n',
        flat("0.15", name="prompt").replace("price = 0.15", 'tiering = "volume"\ntiers = [{ price = 15 }]'),
    ],
    ids=["renamed", "another unit", "an adjustment", "renamed, with tiers"],
)
def test_a_jump_that_no_unit_price_shows_is_found_in_what_the_same_usages_cost(after):
    found = jumps(program(flat("0.15")), program(after), Decimal(99))

    assert [(each.charge, each.factor) for each in found] == [("whole price of input_tokens=1", 100)]


def test_a_price_that_jumps_for_some_usages_only_is_found_at_their_edge():
    long = flat("0.15", name="long", meter="max(input_tokens - 32_000, 0)")
    old = program(flat("0.15"))
    new = program(flat("0.15") + long.replace("0.15", "100") + "when = \"input_tokens > 32_000 and mode == 'x'\"\n")

    (found,) = jumps(old, new, LIMIT)

    assert found.charge == "whole price of input_tokens=1000000, mode='x'"


def test_the_rounding_of_a_small_amount_is_no_jump():
    assert jump_names(program(flat("0.01")), program(flat("0.011")), Decimal("1.5")) == []


def test_what_only_one_of_two_programs_can_price_is_not_compared():
    pages = program(flat("1", name="pages", meter="pages", per="1"))
    tokens = program(flat("1"))

    assert unit_price_jumps(pages, tokens) == []
    # Each was free of charge for what the other counts.
    assert jump_names(pages, tokens) == ["whole price of input_tokens=1", "whole price of pages=1"]


@given(programs(), programs())
def test_on_the_way_back_each_unit_price_moves_by_the_inverse_factor(before, after):
    there, back = unit_price_jumps(before, after), unit_price_jumps(after, before)

    assert sorted((each.before, each.after) for each in there) == sorted((each.after, each.before) for each in back)


@settings(max_examples=25)
@given(programs())
def test_a_program_never_jumps_from_itself(same):
    assert jumps(same, same, Decimal(1)) == []
