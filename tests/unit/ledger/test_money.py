"""Money comes in exactly or not at all, and is printed so that nothing is lost."""

from decimal import Decimal, localcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import Microcents, cents_text, microcents_from_cents, units_text
from ledger.money import MAX_AMOUNT

amounts = st.integers(min_value=-MAX_AMOUNT, max_value=MAX_AMOUNT).map(Microcents)


@given(amounts)
def test_an_amount_printed_in_cents_and_read_again_is_the_same(amount: Microcents) -> None:
    printed = cents_text(amount)

    assert amount == microcents_from_cents(Decimal(printed))


@given(amounts)
def test_an_amount_printed_in_units_says_the_same_number(amount: Microcents) -> None:
    number, currency = units_text(amount, "USD").split(" ")

    assert currency == "USD"
    with localcontext() as context:
        context.prec = 50
        assert Decimal(amount) == Decimal(number) * 10**8


@given(amounts)
def test_cents_are_printed_plainly_without_exponent_or_trailing_zeros(amount: Microcents) -> None:
    whole, _, decimals = cents_text(amount).partition(".")

    assert whole.lstrip("-").isdigit()
    assert not decimals or (decimals.isdigit() and not decimals.endswith("0") and len(decimals) <= 6)


@given(st.decimals(allow_nan=False, allow_infinity=False), st.integers(min_value=-40, max_value=20))
def test_a_number_of_cents_is_booked_exactly_or_refused(number: Decimal, exponent: int) -> None:
    cents = number.scaleb(exponent) if abs(number) < Decimal("1e40") else number

    try:
        amount = microcents_from_cents(cents)
    except ValueError:
        amount = None

    if amount is not None:
        top, bottom = cents.as_integer_ratio()
        assert top * 1_000_000 == amount * bottom


@pytest.mark.parametrize(
    ("cents", "microcents"),
    [
        (1000, 1_000_000_000),
        (0, 0),
        (-1, -1_000_000),
        (Decimal("0.000135"), 135),
        (Decimal("0.000001"), 1),
        (Decimal("12.50000000000000000000000000000000000000"), 12_500_000),
        (Decimal("1E+3"), 1_000_000_000),
        (Decimal(MAX_AMOUNT).scaleb(-6), MAX_AMOUNT),
    ],
)
def test_cents_are_a_million_microcents_each(cents: int | Decimal, microcents: int) -> None:
    assert microcents == microcents_from_cents(cents)


@pytest.mark.parametrize(
    "cents",
    [
        Decimal("NaN"),
        Decimal("sNaN"),
        Decimal("Infinity"),
        Decimal("-Infinity"),
        Decimal(MAX_AMOUNT + 1).scaleb(-6),
        -Decimal(MAX_AMOUNT + 1).scaleb(-6),
        2**63,
        10**400,
        Decimal("1E+999999"),
        Decimal("1E+1000000000"),
    ],
)
def test_what_is_no_amount_or_too_large_is_refused(cents: int | Decimal) -> None:
    with pytest.raises(ValueError, match="not an amount that can be booked"):
        microcents_from_cents(cents)


@pytest.mark.parametrize(
    "cents",
    [
        Decimal("0.0000001"),
        Decimal("0.1234567"),
        # More digits than Decimal's arithmetic keeps: computing with them would round them away.
        Decimal("1.0000000000000000000000000000001"),
        Decimal("922337203685.0000001"),
        Decimal("1E-7"),
        Decimal("1E-999999999"),
        Decimal("-1E-400"),
    ],
)
def test_what_is_finer_than_a_microcent_is_refused_and_never_rounded(cents: Decimal) -> None:
    with pytest.raises(ValueError, match="finer than a microcent"):
        microcents_from_cents(cents)


def test_the_callers_decimal_context_does_not_matter() -> None:
    with localcontext() as context:
        context.prec = 3
        amount = microcents_from_cents(Decimal("123456.654321"))
        largest = microcents_from_cents(Decimal("922337203685.477580"))

    assert amount == 123_456_654_321
    assert largest == MAX_AMOUNT


@pytest.mark.parametrize(
    ("amount", "cents", "units"),
    [
        (0, "0", "0.00 USD"),
        (1, "0.000001", "0.00000001 USD"),
        (-1, "-0.000001", "-0.00000001 USD"),
        (135, "0.000135", "0.00000135 USD"),
        (1_000_000_000, "1000", "10.00 USD"),
        (-12_500_000, "-12.5", "-0.125 USD"),
        (123_456_789_012, "123456.789012", "1234.56789012 USD"),
    ],
)
def test_amounts_are_printed_for_people_exactly(amount: int, cents: str, units: str) -> None:
    assert cents == cents_text(Microcents(amount))
    assert units == units_text(Microcents(amount), "USD")
