"""An amount to book and what a card network is told are the same money."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import Microcents
from ledger.money import units_of
from payments.errors import AmountRefused
from payments.smallest_units import major_units, microcents_in, units_in

currencies = st.sampled_from(["USD", "EUR", "CNY", "JPY", "KRW", "KWD", "ISK", "UGX", "XXX"])


@pytest.mark.parametrize(
    ("currency", "units", "major"),
    [("USD", 1050, "10.50"), ("JPY", 1050, "1050"), ("KWD", 1050, "1.050"), ("ISK", 1050, "10.50")],
)
def test_a_currency_has_the_decimals_that_stripe_says(currency: str, units: int, major: str) -> None:
    assert major_units(units, currency) == Decimal(major)


@given(currencies, st.integers(0, 10**12))
def test_units_are_an_amount_and_the_amount_is_the_units(currency: str, units: int) -> None:
    amount = microcents_in(units, currency)

    assert units_in(amount, currency) == units
    assert units_of(amount) == major_units(units, currency)


@given(currencies, st.integers(0, 10**12), st.integers(1, 99_999))
def test_what_is_finer_than_a_unit_is_refused_and_never_rounded(currency: str, units: int, more: int) -> None:
    with pytest.raises(AmountRefused):
        units_in(Microcents(microcents_in(units, currency) + more), currency)
