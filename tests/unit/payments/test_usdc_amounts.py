"""Millionths of a coin for microcents: exact, however many they are."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payments.usdc.amounts import coins, credit_for, usdc

units = st.integers(min_value=1, max_value=2**256 - 1)
rates = st.decimals(min_value="0.000001", max_value=10**6, places=6)


@pytest.mark.parametrize(
    ("count", "microcents"), [(1, 100), (10_000, 1_000_000), (1_000_000, 100_000_000), (25_000_001, 2_500_000_100)]
)
def test_a_millionth_of_a_coin_is_a_hundred_microcents_of_a_dollar(count: int, microcents: int) -> None:
    assert credit_for(count, None) == microcents


@given(units)
def test_no_digit_of_a_deposit_is_lost(count: int) -> None:
    assert Fraction(coins(count)) == Fraction(count, 10**6) == Fraction(credit_for(count, None), 10**8)
    assert usdc(count).amount == coins(count)


@given(units, rates)
def test_at_a_rate_less_than_a_microcent_is_lost(count: int, rate: Decimal) -> None:
    exact = Fraction(count) * 100 * Fraction(rate)

    assert 0 <= exact - credit_for(count, rate) < 1
