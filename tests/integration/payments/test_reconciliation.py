"""Stripe's books against ours: planted breaks are found, and nothing else; fees and payouts are booked once."""

import csv
import io
import random
from datetime import date, timedelta
from typing import Any

import asyncpg
import msgspec
import pytest

from ledger.errors import IdempotencyMismatch
from payments import BreakNotFound, PeriodNotOver, ProviderRefused, ProviderUnavailable
from payments.reconciliation import COLUMNS, as_csv, as_json
from projections import check_books
from tests.integration.ledger.stored import broken_rules
from tests.integration.projections.test_providers import assert_zero_in_every_currency, balances

from .conftest import Payer, Till
from .finance import TODAY, Finance


@pytest.fixture
def finance(till: Till) -> Finance:
    return Finance(till)


async def test_books_that_agree_have_no_breaks_through_refunds_disputes_fees_and_payouts(
    finance: Finance, till: Till, payer: Payer, admin: asyncpg.Connection
) -> None:
    kept, refunded, disputed, won = [await finance.credited(payer, cents) for cents in (1000, 2000, 3000, 4000)]
    for units in (500, 300):
        till.refund(refunded, units)
    failed = till.refund(kept, 100)
    till.books.fail_refund(failed)
    till.books.dispute(till.charge_of(disputed), None)
    till.books.close_dispute(till.books.dispute(till.charge_of(won), None), "won")
    finance.balance.charge_fee(77, "usd")
    arrived = finance.balance.pay_out("usd")
    finance.balance.arrive(arrived)
    await finance.tell()

    report = await finance.report()

    assert report.breaks == []
    assert {item.kind for item in report.items} == {"payment", "refund", "dispute", "fee", "payout"}
    fees = sum(cents * 29 // 1000 + 30 for cents in (1000, 2000, 3000, 4000)) + 1500 + 77
    in_microcents = {account: balance // 10**6 for (account, _), balance in (await balances(admin)).items()}
    assert in_microcents["processor_fees"] == fees
    assert in_microcents["cash"] == arrived["amount"] == 10000 - 800 - 3000 - fees
    assert (in_microcents["processor_clearing"], in_microcents["cash_in_transit"]) == (0, 0)
    assert in_microcents["customer_available"] == -(10000 - 800 - 3000)
    await assert_zero_in_every_currency(admin)
    assert [str(finding) async for finding in check_books(admin)] == []
    assert await broken_rules(admin) == []


async def test_planted_breaks_of_each_kind_are_found_and_nothing_else(
    finance: Finance, till: Till, payer: Payer
) -> None:
    fine, forgotten, altered = [await finance.credited(payer, cents) for cents in (1000, 2000, 3000)]
    untold = await till.paid(payer, 700)
    till.refund(fine, 100)  # of which we are not told either
    planted = finance.balance.plant_payment(900, "usd")
    finance.balance.forget(finance.transaction_of(forgotten["latest_charge"]))
    finance.balance.alter(finance.transaction_of(altered["latest_charge"]), 2999)
    stranger = till.books.get(planted["source"], "charge")["payment_intent"]

    assert sorted(await finance.breaks()) == sorted(
        [
            ("missing_here", "payment", untold["id"]),
            ("missing_here", "refund", fine["id"]),
            ("missing_here", "payment", stranger),
            ("missing_there", "payment", forgotten["id"]),
            ("different_amount", "payment", altered["id"]),
        ]
    )


async def test_a_fee_or_payout_that_vanished_or_changed_at_stripe_is_a_break(finance: Finance, payer: Payer) -> None:
    payment = await finance.credited(payer)
    vanished, changed = finance.balance.charge_fee(5, "usd"), finance.balance.charge_fee(6, "usd")
    payout = finance.balance.pay_out("usd")
    assert await finance.breaks() == []

    finance.balance.forget(vanished)
    finance.balance.alter(changed, -7)
    finance.balance.forget(finance.till.books.get(payout["balance_transaction"], "balance_transaction"))
    finance.transaction_of(payment["latest_charge"])["currency"] = "eur"

    assert sorted(await finance.breaks()) == sorted(
        [
            ("missing_there", "fee", vanished["id"]),
            ("different_amount", "fee", changed["id"]),
            ("missing_there", "payout", payout["id"]),
            ("different_currency", "fee", finance.transaction_of(payment["latest_charge"])["id"]),
        ]
    )


async def test_what_is_in_none_of_our_books_is_never_passed_over(finance: Finance) -> None:
    reserve = finance.balance.charge_fee(500, "usd")
    reserve.update(type="reserve_transaction", reporting_category="risk_reserved_funds")

    assert await finance.breaks() == [("missing_here", "other", reserve["id"])]


async def test_fees_and_payouts_are_booked_once_whoever_tells_of_them_in_whatever_order(
    finance: Finance, till: Till, payer: Payer, admin: asyncpg.Connection
) -> None:
    for seed in range(4):
        await finance.credited(payer)
        finance.balance.charge_fee(11 + seed, "usd")
        first = finance.balance.pay_out("usd")
        finance.balance.arrive(first)
        await finance.credited(payer)
        finance.balance.fail(finance.balance.pay_out("usd"))
        till.clock.advance(minutes=1)
        steps: list[Any] = [*till.events("payout.created", "payout.paid", "payout.failed"), None, None]
        steps += till.events("payout.reconciliation_completed")
        random.Random(seed).shuffle(steps)
        for event in steps:
            if event is None:
                assert (await finance.report()).breaks == []
            else:
                await till.tell(event)
        await finance.tell()

    rows = await admin.fetch("SELECT type, payload ->> 'reference', payload ->> 'payout_id', count(*) AS times"
                             " FROM events WHERE stream_id = 'provider:stripe' GROUP BY 1, 2, 3")  # fmt: skip
    types = [row["type"] for row in rows]
    assert {row["times"] for row in rows} == {1}
    assert (types.count("payout.initiated"), types.count("payout.paid"), types.count("payout.failed")) == (8, 4, 4)
    assert types.count("processor_fee.charged") == 4 * 3
    assert {status for status, _ in await till.outcomes()} <= {"processed", "ignored"}
    await assert_zero_in_every_currency(admin)


async def test_a_notification_of_a_payout_that_stripe_does_not_know_is_a_break(finance: Finance, till: Till) -> None:
    finance.balance.charge_fee(-500, "usd")
    payout = finance.balance.pay_out("usd")
    del till.books.objects[payout["id"]]

    await finance.tell("payout.created")

    ((status, outcome),) = await till.outcomes()
    assert (status, outcome.split(":")[0]) == ("broken", "unknown")


async def test_a_list_of_many_pages_is_read_to_its_end(finance: Finance) -> None:
    fees = [finance.balance.charge_fee(nth + 1, "usd")["id"] for nth in range(250)]

    report = await finance.report()

    assert sorted(fees) == sorted(item.reference for item in report.items)
    assert report.breaks == []


@pytest.mark.parametrize(
    ("fault", "error"), [({"status": 500}, ProviderUnavailable), ({"status": 403}, ProviderRefused)]
)
async def test_a_stripe_that_fails_in_the_middle_gives_an_error_and_no_report(
    finance: Finance, till: Till, admin: asyncpg.Connection, fault: dict[str, Any], error: type[Exception]
) -> None:
    for nth in range(150):
        finance.balance.charge_fee(nth + 1, "usd")

    def after_the_first_page(path: str) -> None:
        till.stripe_fails(**fault)

    till.stripe.after_request = after_the_first_page
    with pytest.raises(error):
        await finance.report()

    assert await admin.fetchval("SELECT count(*) FROM events") == await admin.fetchval(
        "SELECT count(*) FROM events WHERE stream_id NOT LIKE 'provider:%'"
    )


@pytest.mark.parametrize(("booked_after_s", "day"), [(2, 21), (2, 22), (2 * 24 * 3600, 21)])
async def test_a_payment_before_midnight_that_is_booked_after_it_is_no_break(
    finance: Finance, till: Till, payer: Payer, booked_after_s: int, day: int
) -> None:
    till.clock.now = TODAY.end - timedelta(seconds=1)
    await till.paid(payer)
    till.clock.advance(seconds=booked_after_s)
    for event in till.events():
        await till.tell(event)
    till.clock.advance(days=2)

    report = await finance.report(day=date(2026, 11, day))

    assert [item.status for item in report.items if item.kind == "payment"] == ["matched"]


async def test_a_payment_that_was_credited_long_after_its_day_is_matched(
    finance: Finance, till: Till, payer: Payer
) -> None:
    await till.paid(payer)
    till.clock.advance(days=40)
    await finance.tell()

    assert (await finance.report()).breaks == []


@pytest.mark.parametrize("late", [timedelta(days=5), timedelta(days=40)], ids=str)
async def test_what_was_booked_long_after_it_moved_is_no_break_of_either_day(
    finance: Finance, till: Till, payer: Payer, late: timedelta
) -> None:
    refunded, disputed = await finance.credited(payer, 1000), await finance.credited(payer, 2000)
    untold = await till.paid(payer, 700)
    till.refund(refunded, 100)
    till.books.dispute(till.charge_of(disputed), None)
    assert sorted(await finance.breaks()) == sorted(
        [
            ("missing_here", "payment", untold["id"]),
            ("missing_here", "refund", refunded["id"]),
            ("missing_here", "dispute", disputed["id"]),
        ]
    )

    till.clock.advance(days=late.days)
    till.refund(refunded, 100)
    await finance.tell()
    booked_on = till.clock.now.date()
    till.clock.advance(days=1)

    assert await finance.breaks() == []
    report = await finance.report(day=booked_on)
    assert report.breaks == []
    assert {item.kind for item in report.items} == {"payment", "refund", "dispute"}


async def test_what_nobody_moved_is_a_break_however_long_the_books_are_compared(
    finance: Finance, till: Till, payer: Payer
) -> None:
    payment = await finance.credited(payer)
    till.refund(payment, 100)
    till.clock.advance(days=5)
    await finance.tell()
    booked_on = till.clock.now.date()
    till.clock.advance(days=1)
    for each in till.books.all_of("balance_transaction"):
        finance.balance.forget(each)

    assert [(item.status, item.kind, item.reference) for item in (await finance.report(day=booked_on)).breaks] == [
        ("missing_there", "refund", payment["id"])
    ]


async def test_a_day_that_is_not_over_is_not_reconciled(finance: Finance, till: Till) -> None:
    with pytest.raises(PeriodNotOver):
        await finance.reconciler.reconcile(till.road.statements, TODAY)


# --- what people say of it


async def test_a_resolved_break_is_shown_and_no_more_open_until_its_amount_changes(
    finance: Finance, till: Till
) -> None:
    planted = finance.balance.plant_payment(900, "usd")
    (found,) = (await finance.report()).unresolved
    assert found.break_id is not None

    with pytest.raises(BreakNotFound):
        await finance.reconciler.resolve("brk_0", reason="a donation", resolved_by="ann")
    await finance.reconciler.resolve(found.break_id, reason="a donation", resolved_by="ann")
    await finance.reconciler.resolve(found.break_id, reason="a donation", resolved_by="ann")
    with pytest.raises(IdempotencyMismatch):
        await finance.reconciler.resolve(found.break_id, reason="a mistake", resolved_by="bob")

    again = await finance.report()
    assert (again.breaks, again.unresolved) == ([found], [])
    assert again.resolutions[found.break_id].reason == "a donation"
    finance.balance.alter(planted, 901)
    (other,) = (await finance.report()).unresolved
    assert other.break_id != found.break_id


async def test_csv_and_json_have_a_row_for_each_item_with_the_columns_that_are_documented(
    finance: Finance, payer: Payer
) -> None:
    payment = await finance.credited(payer, 1050)
    finance.balance.plant_payment(900, "usd")
    report = await finance.report()
    (broken,) = report.unresolved
    assert broken.break_id is not None
    await finance.reconciler.resolve(broken.break_id, reason="a donation, by mistake", resolved_by="ann")
    report = await finance.report()

    rows = list(csv.DictReader(io.StringIO(as_csv(report))))
    said = msgspec.json.decode(as_json(report))

    assert tuple(rows[0]) == COLUMNS == (
        "provider", "status", "is_resolved", "break_id", "kind", "reference",
        "their_amount", "their_currency", "their_at", "their_lines",
        "our_amount", "our_currency", "our_at", "our_lines", "topup_id", "account_id", "resolved_by", "reason",
    )  # fmt: skip
    assert tuple(said["items"][0]) == COLUMNS
    assert len(rows) == len(said["items"]) == len(report.items) == 4
    (matched,) = [row for row in rows if row["reference"] == payment["id"]]
    assert (matched["status"], matched["their_amount"], matched["our_amount"]) == ("matched", "10.50", "10.50")
    assert (matched["account_id"], matched["is_resolved"], matched["break_id"]) == (payer.account_id, "", "")
    (resolved,) = [row for row in rows if row["break_id"]]
    assert (resolved["is_resolved"], resolved["resolved_by"], resolved["reason"]) == (
        "true", "ann", "a donation, by mistake",
    )  # fmt: skip
    assert (said["counts"], said["unresolved"]) == ({"matched": 3, "missing_here": 1}, 0)
    assert (said["from"], said["to"]) == ("2026-11-21T00:00:00Z", "2026-11-22T00:00:00Z")
