"""The chain against our books: planted breaks are found, and nothing else; a part of a day is never taken for it."""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
import pytest_asyncio

from ledger import CreditTopup, Ledger, RequestTopup
from ledger.events import Paid
from payments import ProviderUnavailable
from payments.reconciliation import Reconciler, Report, days_of
from payments.usdc.chain import open_statements
from tests.conftest import Clock
from tests.integration.payments.conftest import Payer

from .dev_chain import DevChain, dev_chain
from .till import UsdcTill, open_usdc_till

DAY = days_of(date(2026, 11, 21), date(2026, 11, 22), UTC)
LATER = datetime(2026, 11, 24, tzinfo=UTC)


@pytest_asyncio.fixture
async def dev() -> AsyncIterator[DevChain]:
    """A chain whose days pass in one test only."""
    async with dev_chain(datetime(2026, 11, 21, 12, 0, tzinfo=UTC)) as chain:
        yield chain


@pytest_asyncio.fixture
async def till(ledger: Ledger, clock: Clock, dev: DevChain) -> AsyncIterator[UsdcTill]:
    async with open_usdc_till(ledger, clock, dev, odd_nodes=1) as till:
        yield till


async def until_days_later(till: UsdcTill) -> None:
    """Blocks are made while two days pass."""
    await till.dev.ask("anvil_mine", hex(10), hex(6 * 3600))
    till.clock.now = LATER


async def report(till: UsdcTill) -> Report:
    async with open_statements([till.chain_config], till.ledger) as statements:
        return await Reconciler(till.ledger, till.clock).reconcile(statements, DAY)


async def breaks(till: UsdcTill) -> list[tuple[str, str]]:
    return [(item.status, item.reference) for item in (await report(till)).breaks]


async def credit_what_nobody_sent(till: UsdcTill, payer: Payer, coins: str) -> str:
    """A deposit that is in our books only; what it is called there."""
    paid, payment_id = Paid("USDC", Decimal(coins)), f"{till.dev.chain_id}:0x{'ab' * 32}:0"
    amount = int(paid.amount * 10**8)
    await till.ledger.submit(
        RequestTopup(
            stream_id=payer.account_id, topup_id="topup_forged", provider="usdc", amount_microcents=amount,
            asked=paid, requested_by="usdc", idempotency_key="topup_forged",
        )
    )  # fmt: skip
    await till.ledger.submit(
        CreditTopup(
            stream_id=payer.account_id, topup_id="topup_forged", provider="usdc", payment_id=payment_id, paid=paid
        )
    )
    return payment_id


async def test_books_that_agree_have_no_breaks_whatever_the_accounts_currency(till: UsdcTill) -> None:
    for currency, units in (("USD", 25_000_001), ("CNY", 1_234_567)):
        await till.dev.pay(await till.address(await till.payer(currency)), units)
    await till.dev.pay(await till.address(await till.payer()), 999_999)  # dust
    await till.confirm()
    await until_days_later(till)

    found = await report(till)

    assert found.breaks == []
    assert sorted(item.theirs[0].amount for item in found.items) == [Decimal("1.234567"), Decimal("25.000001")]


async def test_planted_breaks_of_each_kind_are_found_and_nothing_else(till: UsdcTill, payer: Payer) -> None:
    address = await till.address(payer)
    await till.dev.pay(address, 25_000_000)
    await till.confirm()
    forged = await credit_what_nobody_sent(till, payer, "7.000000")
    unseen = await till.dev.pay(address, 5_000_000)  # nobody has looked since
    await until_days_later(till)

    found = await breaks(till)

    assert sorted(status for status, _ in found) == ["missing_here", "missing_there"]
    assert dict(found)["missing_there"] == forged
    assert unseen in dict(found)["missing_here"]


async def test_a_deposit_that_its_chain_forgot_after_it_was_credited_fits_when_it_was_taken_back(
    till: UsdcTill, payer: Payer
) -> None:
    await till.dev.pay(await till.address(payer))
    await till.confirm()
    await till.dev.reorganise(3)
    await till.look()
    assert await till.status_of(payer) == "reversed"
    await until_days_later(till)

    assert await breaks(till) == []


async def test_a_day_whose_last_block_does_not_count_yet_is_not_reconciled(till: UsdcTill, payer: Payer) -> None:
    await till.dev.pay(await till.address(payer))
    await till.confirm()
    till.clock.now = DAY.end + timedelta(hours=2)

    with pytest.raises(ProviderUnavailable, match="is final"):
        await report(till)
    await until_days_later(till)
    assert await breaks(till) == []


@pytest.mark.parametrize("fault", ["away", "no logs"])
async def test_a_node_that_fails_gives_an_error_and_no_report(till: UsdcTill, payer: Payer, fault: str) -> None:
    await till.dev.pay(await till.address(payer))
    await till.confirm()
    await until_days_later(till)
    till.odd[0].is_away = fault == "away"
    till.odd[0].answers = {"eth_getLogs": "none of your business"} if fault == "no logs" else {}

    with pytest.raises(ProviderUnavailable):
        await report(till)
