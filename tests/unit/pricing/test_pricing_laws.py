"""What holds for every program and every usage."""

from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pricing import Program, Span, UsageError, format_program, parse_program
from tests.strategies_pricing import boxes_around, programs, usages
from tests.unit.pricing.naive_pricing import Refused, naive_price

#: Each example is one program and several usages of it, so that these are thousands.
thorough = settings(
    max_examples=2 * settings.default.max_examples,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)
USAGES_PER_PROGRAM = range(5)


def price_or_none(program: Program, usage: dict) -> int | None:
    try:
        return program.price(usage).total_microcents
    except UsageError:
        return None


def bound_or_none(program: Program, box: dict) -> int | None:
    try:
        return program.bound(box)
    except UsageError:
        return None


@thorough
@given(st.data(), programs())
def test_price_equals_the_plain_calculation_to_the_last_digit(data, program):
    for _ in USAGES_PER_PROGRAM:
        usage = data.draw(usages(program))
        try:
            expected = naive_price(program.definition, usage)
        except Refused:
            expected = None

        assert expected == price_or_none(program, usage)


@pytest.mark.money_bug(10)
@thorough
@given(st.data(), programs())
def test_price_of_every_usage_in_a_box_is_at_most_its_bound(data, program):
    for _ in USAGES_PER_PROGRAM:
        usage = data.draw(usages(program))
        box = data.draw(boxes_around(usage))
        price = price_or_none(program, usage)

        if price is not None:
            assert price <= program.bound(box)


@thorough
@given(st.data(), programs())
def test_bound_of_a_known_usage_is_its_price_and_both_refuse_the_same(data, program):
    for _ in USAGES_PER_PROGRAM:
        usage = data.draw(usages(program))

        assert price_or_none(program, usage) == bound_or_none(program, usage)


@pytest.mark.money_bug(38)
@thorough
@given(st.data(), programs())
def test_lines_sum_to_the_total_and_none_is_negative(data, program):
    for _ in USAGES_PER_PROGRAM:
        try:
            price = program.price(data.draw(usages(program)))
        except UsageError:
            continue

        assert price.total_microcents == sum(line.amount_microcents for line in price.lines)
        assert all(line.amount_microcents >= 0 for line in price.lines)


@thorough
@given(programs())
def test_text_to_tree_to_text_to_tree_is_the_identity(program):
    text = format_program(program)
    again = parse_program(text)

    assert program.definition == again.definition
    assert text == format_program(again)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**29, max_value=10**5000)
    | st.floats()
    | st.decimals()
    | st.text(max_size=5)
    | st.sampled_from([Decimal("1E+999999"), Decimal("-1E+999999"), Decimal("1E-999999"), Decimal("0E+999999")]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)


@pytest.mark.money_bug(34)
@thorough
@given(st.data(), programs())
def test_any_dict_however_odd_costs_zero_or_more_or_is_refused_with_a_usage_error(data, program):
    for _ in USAGES_PER_PROGRAM:
        odd = data.draw(st.dictionaries(st.sampled_from([*program.keys, "other"]), json_values, max_size=2))
        usage = {**data.draw(usages(program)), **odd}
        if usage and data.draw(st.booleans()):
            del usage[data.draw(st.sampled_from(sorted(usage)))]
        price = price_or_none(program, usage)

        assert price is None or price >= 0
        assert price == bound_or_none(program, usage)


@thorough
@given(st.data(), programs())
def test_any_box_however_odd_is_bounded_at_zero_or_more_or_refused_with_a_usage_error(data, program):
    ends = st.integers() | json_values
    values = st.builds(Span, ends, ends) | st.frozensets(st.text(max_size=2) | st.booleans(), max_size=2)
    for _ in USAGES_PER_PROGRAM:
        odd = data.draw(st.dictionaries(st.sampled_from([*program.keys, "other"]), values, max_size=3))
        bound = bound_or_none(program, {**data.draw(usages(program)), **odd})

        assert bound is None or bound >= 0
