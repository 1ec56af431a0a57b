"""The picture of a backtest."""

import pytest

from pricing import PriceBook, PricingError
from pricing.backtest import Backtest
from pricing.backtest_chart import chart_of, require_chart
from pricing.repricing import Repricing
from tests.unit.pricing.charges import charge, priced_by

CANDIDATE = priced_by("pages")


def backtest(*currencies: str) -> Backtest:
    tested = Backtest(Repricing(CANDIDATE, PriceBook()))
    tested.add(charge(5, {"pages": 1}, account_id="acct_loser", currency=currency) for currency in currencies)
    tested.add(charge(10**9, {"pages": 1}, account_id="acct_winner", currency=currency) for currency in currencies)
    return tested


def test_a_chart_names_the_accounts_and_the_currency_and_is_the_same_every_time() -> None:
    svg = chart_of(backtest("USD"), CANDIDATE.program, ".svg")

    assert svg == chart_of(backtest("USD"), CANDIDATE.program, ".svg")
    for text in ("acct_loser", "acct_winner", "revenue a day, USD", "before", "after"):
        assert text in svg.decode()


def test_a_chart_can_be_a_png() -> None:
    assert chart_of(backtest("USD"), CANDIDATE.program, ".png").startswith(b"\x89PNG")


def test_what_cannot_be_drawn_is_said() -> None:
    with pytest.raises(ValueError, match=r"\.svg or a \.png"):
        require_chart(".pdf")
    with pytest.raises(PricingError, match="nothing to draw"):
        chart_of(backtest(), CANDIDATE.program, ".svg")
