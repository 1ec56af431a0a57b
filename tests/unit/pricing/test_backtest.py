"""A backtest adds up what the candidate gives for each usage, and never passes one over."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import PRICE_BOOK
from ledger.charges import StoredCharge
from ledger.events import ProgramAssigned, RatePublished, StoredEvent
from pricing import PriceBook, PricedProgram
from pricing.backtest import MAX_REASONS, OTHER_REASONS, Backtest, Revenue, models_priced_by
from pricing.repricing import Repricing
from tests.unit.pricing.charges import NOON, charge, corrected, priced_by
from tests.unit.pricing.test_exchange_rates import book_of

UNIT = 100_000_000  # microcents


def backtest(
    charges: list[StoredCharge], candidate: PricedProgram | None = None, book: PriceBook | None = None
) -> Backtest:
    tested = Backtest(Repricing(candidate or priced_by("pages"), book or PriceBook()))
    tested.add(charges)
    return tested


def test_each_view_adds_up_the_same_usages() -> None:
    tomorrow = NOON + timedelta(days=1)
    charges = [
        charge(5, {"pages": 1}, account_id="acct_a", model="m"),
        charge(7, {"pages": 2}, account_id="acct_b", model="n"),
        charge(0, {"pages": 3}, account_id="acct_a", model="n", at=tomorrow),
    ]

    tested = backtest(charges)

    assert tested.totals == {"USD": Revenue(3, 12, 6 * UNIT)}
    assert tested.accounts == {("USD", "acct_a"): Revenue(2, 5, 4 * UNIT), ("USD", "acct_b"): Revenue(1, 7, 2 * UNIT)}
    assert tested.models == {("USD", "m"): Revenue(1, 5, UNIT), ("USD", "n"): Revenue(2, 7, 5 * UNIT)}
    assert tested.days == {
        ("USD", date(2026, 11, 7)): Revenue(2, 12, 3 * UNIT),
        ("USD", date(2026, 11, 8)): Revenue(1, 0, 3 * UNIT),
    }


def test_a_corrected_charge_counts_as_corrected() -> None:
    stored = corrected(charge(5, {"pages": 1}), 9, priced_by("pages", version=2).ref)

    assert backtest([stored]).totals == {"USD": Revenue(1, 9, UNIT)}


def test_accounts_that_lose_and_win_come_with_the_largest_difference_first() -> None:
    paid = {"a": 1, "b": 3, "c": 2, "d": 2 * UNIT, "e": 3 * UNIT, "f": UNIT}

    tested = backtest([charge(amount, {"pages": 1}, account_id=account) for account, amount in paid.items()])

    assert [account for (_, account), _ in tested.losers] == ["a", "c", "b"]
    assert [account for (_, account), _ in tested.winners] == ["e", "d"]


def test_what_the_candidate_cannot_price_is_counted_by_reason_with_an_example() -> None:
    charges = [
        charge(5, {"pages": 1}, hold_id="hold_1"),
        charge(6, {"tokens": 1}, hold_id="hold_2"),
        charge(7, {}, hold_id="hold_3"),
        charge(8, {"pages": -1}, hold_id="hold_4"),
    ]

    tested = backtest(charges)

    assert tested.totals == {"USD": Revenue(1, 5, UNIT)}
    assert {reason: (each.usages, each.before, each.example) for (_, reason), each in tested.unpriced.items()} == {
        "pages: is missing, and the program has no default for it": (2, 13, "hold_2"),
        "pages: is negative": (1, 8, "hold_4"),
    }


def test_reasons_that_quote_the_usage_do_not_fill_the_memory() -> None:
    candidate = priced_by("pages", more='[values]\nmode = ["fast"]', price="1\nwhen = \"mode == 'fast'\"")

    tested = backtest([charge(1, {"pages": 1, "mode": f"mode {n}"}) for n in range(2 * MAX_REASONS)], candidate)

    assert len(tested.unpriced) == MAX_REASONS + 1
    assert tested.unpriced["USD", OTHER_REASONS].usages == MAX_REASONS


@pytest.mark.parametrize(
    ("placed_at", "usage", "price"),
    [
        # 7 November 2026 is a Saturday
        (datetime(2026, 11, 7, 23, 59, 59, tzinfo=UTC), {}, 2306),
        (datetime(2026, 11, 8, 0, 0, tzinfo=UTC), {}, 7),
        (datetime(2026, 11, 9, 1, 30, tzinfo=timezone(timedelta(hours=8))), {}, 1707),
        (datetime(2026, 11, 7, 23, 0, tzinfo=UTC), {"hour": 1, "weekday": 2}, 102),
    ],
)
def test_a_candidate_that_reads_the_time_gets_that_of_the_hold_where_the_usage_has_none(
    placed_at: datetime, usage: dict[str, Any], price: int
) -> None:
    tested = backtest([charge(0, usage, placed_at=placed_at)], priced_by("hour * 100 + weekday"))

    assert tested.totals["USD"].after == price * UNIT


def test_currencies_are_converted_at_the_rate_of_the_time_and_never_added_up() -> None:
    rate = RatePublished(
        currency="USD", account_currency="CNY", rate=Decimal(7), effective_from=NOON, published_by="anna"
    )
    charges = [
        charge(5, {"pages": 1}, currency="USD"),
        charge(6, {"pages": 1}, currency="CNY"),
        charge(7, {"pages": 1}, currency="CNY", placed_at=NOON - timedelta(seconds=1)),
    ]

    tested = backtest(charges, book=book_of(rate))

    assert tested.totals == {"USD": Revenue(1, 5, UNIT), "CNY": Revenue(1, 6, 7 * UNIT)}
    assert [(currency, each.before) for (currency, _), each in tested.unpriced.items()] == [("CNY", 7)]


@given(st.lists(st.tuples(st.integers(0, 10**12), st.integers(-3, 50), st.sampled_from("ab")), max_size=20))
def test_every_usage_is_in_each_view_once_or_among_the_unpriced(facts: list[tuple[int, int, str]]) -> None:
    charges = [charge(amount, {"pages": pages}, account_id=account) for amount, pages, account in facts]

    tested = backtest(charges)

    refused = tested.unpriced.values()
    for view in (tested.totals, tested.accounts, tested.models, tested.days):
        revenues = list(view.values())  # type: ignore[attr-defined]
        assert sum(each.usages for each in (*revenues, *refused)) == len(facts)
        assert sum(each.before for each in (*revenues, *refused)) == sum(amount for amount, _, _ in facts)
        assert sum(each.after for each in revenues) == sum(UNIT * pages for _, pages, _ in facts if pages >= 0)


def test_the_models_of_a_program_are_those_that_any_version_was_ever_assigned_to() -> None:
    book = book_of()
    for position, model in enumerate(("n", "a", "n"), start=10):
        event = ProgramAssigned(program="p", version=1, model=model, effective_from=NOON, assigned_by="anna")
        book.apply(StoredEvent(position=position, stream_id=PRICE_BOOK, seq=position, at=NOON, event=event))

    assert models_priced_by(book, "p") == ["a", "m", "n"]
    assert models_priced_by(book, "q") == []


def test_a_candidate_that_reads_the_plan_gets_that_of_the_hold() -> None:
    more = "[defaults]\nplan = 'free'\n"
    text = "pages * 4 if plan == 'free' else pages"
    candidate = priced_by(text, more=more)

    tested = backtest(
        [charge(UNIT, {"pages": 1}, plan="gold"), charge(UNIT, {"pages": 1}, account_id="acct_b")], candidate
    )

    assert tested.accounts == {("USD", "acct_a"): Revenue(1, UNIT, UNIT), ("USD", "acct_b"): Revenue(1, UNIT, 4 * UNIT)}


def test_what_was_converted_is_converted_again_at_the_rate_of_its_hold() -> None:
    book = book_of(
        RatePublished(
            currency="CNY",
            account_currency="USD",
            rate=Decimal("9"),
            effective_from=NOON - timedelta(days=900),
            published_by="anna",
        )
    )
    candidate = book.program("p", 1)
    stored = charge(UNIT, {"pages": 100}, price=candidate.ref, exchange_rate=Decimal("0.5"))
    unpinned = charge(UNIT, {"pages": 100}, price=candidate.ref)

    assert backtest([stored], candidate, book).totals == {"USD": Revenue(1, UNIT, 350_000_000)}
    assert backtest([unpinned], candidate, book).totals == {"USD": Revenue(1, UNIT, 6_300_000_000)}
