"""Alipay's bills against ours: planted breaks are found, and nothing else, whatever the currency of the account."""

import io
import zipfile
from collections.abc import AsyncIterator
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from ledger import Ledger
from payments import PeriodNotOver, ProviderRefused, ProviderUnavailable
from payments.alipay.api import BEIJING
from payments.alipay.bills import read_bill
from payments.reconciliation import DailyReconciliation, Reconciler, Report, days_of
from projections import check_books
from simulated_alipay.server import Faults
from simulated_alipay.trades import Trade
from tests.conftest import Clock
from tests.integration.projections.test_providers import assert_zero_in_every_currency, balances

from .alipay_till import AlipayTill, open_alipay_till
from .conftest import Payer

TODAY = date(2026, 11, 21)


class Finance:
    """Who compares the books, two days later."""

    def __init__(self, till: AlipayTill) -> None:
        assert till.alipay_road is not None
        self.till = till
        self.statements = till.alipay_road.statements
        self.reconciler = Reconciler(till.ledger, till.clock)
        self.bills = till.alipay.bills

    async def report(self, day: date = TODAY, *, days: int = 1) -> Report:
        self.till.clock.now = max(self.till.clock.now, datetime(2026, 11, 23, 12, tzinfo=BEIJING))
        return await self.reconciler.reconcile(self.statements, days_of(day, day + timedelta(days=days), BEIJING))

    async def breaks(self) -> list[tuple[str, str, str]]:
        return [(item.status, item.kind, item.reference) for item in (await self.report()).breaks]

    async def paid(self, payer: Payer, cents: int = 1000) -> Trade:
        """A trade that we may not have been told of."""
        trade = await self.till.opened(payer, cents)
        self.till.alipay.trades.pay(trade)
        return trade

    async def credited(self, payer: Payer, cents: int = 1000) -> Trade:
        trade = await self.paid(payer, cents)
        await self.till.tell_all()
        return trade


@pytest_asyncio.fixture
async def till(ledger: Ledger, clock: Clock) -> AsyncIterator[AlipayTill]:
    async with open_alipay_till(ledger, clock) as till:
        yield till


@pytest.fixture
def finance(till: AlipayTill) -> Finance:
    return Finance(till)


async def test_books_that_agree_have_no_breaks_whatever_the_accounts_currency_and_rate(
    finance: Finance, till: AlipayTill, admin: asyncpg.Connection
) -> None:
    in_yuan, in_dollars = await till.payer("CNY"), await till.payer("USD")
    kept = await finance.credited(in_yuan, 1000)
    refunds = [(143, 7), (1, 1, 1), ()]
    for rate, parts in zip(("0.14", "0.1412", "0.137931034"), refunds, strict=True):
        till.rates.dollars = Decimal(rate)
        trade = await finance.credited(in_dollars, 1001)
        for fen in parts:
            till.alipay.trades.refund(trade, fen)
    till.alipay.trades.refund(kept, kept.fen)
    await till.tell_all()

    report = await finance.report()

    assert report.breaks == []
    assert {item.kind for item in report.items} == {"payment", "refund", "fee"}
    fees = -sum(each.fee for each in finance.bills.movements)
    assert (await balances(admin))["processor_fees", "CNY"] == fees * 10**6
    await assert_zero_in_every_currency(admin)
    assert [str(finding) async for finding in check_books(admin)] == []


async def test_planted_breaks_of_each_kind_are_found_and_nothing_else(finance: Finance, till: AlipayTill) -> None:
    payer = await till.payer("USD")
    fine, forgotten, altered = [await finance.credited(payer, cents) for cents in (1000, 2000, 3000)]
    untold = await finance.paid(payer, 700)
    till.alipay.trades.refund(fine, 143)  # of which we are not told either
    stranger = finance.bills.plant(900, till.alipay.trades.now())
    finance.bills.forget(forgotten.trade_no)
    finance.bills.alter(altered.trade_no, altered.fen - 1)

    assert sorted(await finance.breaks()) == sorted(
        [
            ("missing_here", "payment", untold.trade_no),
            ("missing_here", "refund", fine.trade_no),
            ("missing_here", "payment", stranger.trade_no),
            ("missing_there", "payment", forgotten.trade_no),
            ("different_amount", "payment", altered.trade_no),
        ]
    )


async def test_a_fee_that_vanished_from_a_bill_is_a_break_and_one_that_was_booked_before_is_booked_once(
    finance: Finance, till: AlipayTill, admin: asyncpg.Connection
) -> None:
    trade = await finance.credited(await till.payer("USD"), 5000)
    assert await finance.breaks() == []
    assert await finance.breaks() == []
    assert await admin.fetchval("SELECT count(*) FROM events WHERE type = 'processor_fee.charged'") == 1

    finance.bills.forget(trade.trade_no)

    assert sorted(await finance.breaks()) == [
        ("missing_there", "fee", trade.trade_no),
        ("missing_there", "payment", trade.trade_no),
    ]


@pytest.mark.parametrize(
    ("paid_at", "day"),
    [("2026-11-21 15:59:59+00:00", 21), ("2026-11-21 16:00:00+00:00", 22), ("2026-11-20 16:00:00+00:00", 21)],
)
async def test_a_day_is_one_of_beijing(finance: Finance, till: AlipayTill, paid_at: str, day: int) -> None:
    till.clock.now = datetime.fromisoformat(paid_at)
    await finance.credited(await till.payer("USD"))

    for each in (20, 21, 22):
        report = await finance.report(date(2026, 11, each))
        assert [item.status for item in report.items if item.kind == "payment"] == ["matched"] * (each == day)


async def test_a_payment_before_midnight_in_beijing_that_is_booked_after_it_is_no_break(
    finance: Finance, till: AlipayTill
) -> None:
    till.clock.now = datetime(2026, 11, 21, 23, 59, 59, tzinfo=BEIJING)
    await finance.paid(await till.payer("USD"))
    till.clock.advance(seconds=2)
    await till.tell_all()

    for day in (21, 22):
        report = await finance.report(date(2026, 11, day))
        assert report.breaks == []


async def test_a_day_is_not_reconciled_before_its_bill_is_written(finance: Finance, till: AlipayTill) -> None:
    till.clock.now = datetime(2026, 11, 22, 9, 59, tzinfo=BEIJING)

    with pytest.raises(PeriodNotOver):
        await finance.reconciler.reconcile(finance.statements, days_of(TODAY, TODAY + timedelta(days=1), BEIJING))
    till.clock.advance(minutes=1)
    report = await finance.reconciler.reconcile(finance.statements, days_of(TODAY, TODAY + timedelta(days=1), BEIJING))

    assert report.items == []  # a day in which nothing was paid has no bill


@pytest.mark.parametrize(
    ("faults", "error"),
    [
        ({"half_bills": True}, ProviderUnavailable),
        ({"is_busy": True}, ProviderUnavailable),
        ({"status": 502}, ProviderUnavailable),
        ({"unsigned": True}, ProviderRefused),
    ],
)
async def test_a_bill_that_cannot_be_had_whole_gives_an_error_and_no_report(
    finance: Finance, till: AlipayTill, faults: dict[str, Any], error: type[Exception]
) -> None:
    payer = await till.payer("USD")
    for _ in range(5):
        await finance.credited(payer)
    till.alipay.faults = Faults(**faults)

    with pytest.raises(error):
        await finance.report()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda text: text.replace("业务明细列表结束", ""), "no end"),
        (lambda text: text.replace("合计：2笔", "合计：3笔"), "says 3"),
        (lambda text: text.replace("7.15", "a lot"), "makes no sense"),
        (lambda text: text.replace("订单金额", "金额"), "makes no sense"),
        (lambda text: text.replace("支付宝交易号", "交易号"), "0 files"),
        (lambda text: text.replace("2026-11-21 20:00:00\t", "yesterday\t"), "makes no sense"),
    ],
)
def test_a_bill_that_is_not_what_it_should_be_is_refused(change: Any, problem: str) -> None:
    text = TWO_PAYMENTS.replace("\n", "\r\n")

    assert len(read_bill(zipped(text))) == 2
    with pytest.raises(ProviderUnavailable, match=problem):
        read_bill(zipped(change(text)))


@pytest.mark.parametrize("file", [b"", b"PK", b"no zip", zipfile.ZipFile.__doc__.encode()])
def test_what_is_no_zip_is_no_bill(file: bytes) -> None:
    with pytest.raises(ProviderUnavailable):
        read_bill(file)


async def test_alipays_days_are_reconciled_daily_as_well(finance: Finance, till: AlipayTill) -> None:
    finance.bills.plant(900, till.alipay.trades.now())
    till.clock.now = datetime(2026, 11, 22, 10, 1, tzinfo=BEIJING)
    job = DailyReconciliation(till.ledger, [finance.statements], till.clock)

    assert [await job.run(), await job.run()] == [1, 0]
    (run,) = await job.runs("alipay")
    assert (run.day, len(run.breaks)) == (TODAY, 1)


TWO_PAYMENTS = """#支付宝业务明细查询
#-----------------------------------------业务明细列表----------------------------------------
支付宝交易号,商户订单号,业务类型,商品名称,创建时间,完成时间,订单金额（元）,退款批次号/请求号,服务费（元）
2026112122001\t,topup_1\t,交易\t,"额度, 预付"\t,2026-11-21 20:00:00\t,2026-11-21 20:00:00\t,7.15\t,\t,-0.04\t
2026112122002\t,topup_2\t,交易\t,Credit\t,2026-11-21 20:00:01\t,2026-11-21 20:00:01\t,1.00\t,\t,0.00\t
#-----------------------------------------业务明细列表结束------------------------------------
#交易合计：2笔，商家实收共8.15元
#退款合计：0笔，商家实收退款共0.00元
"""


def zipped(text: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("明细.csv", text.encode("gbk"))
    return file.getvalue()
