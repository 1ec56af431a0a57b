"""A look that ends anywhere, and the next one: each effect happens once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg
import pytest

from ledger import UNREACHABLE, Ledger, LedgerError
from payments import PaymentsError
from payments.usdc.booking import DepositBooking
from payments.usdc.deposits import DepositStore
from tests.conftest import Clock
from tests.integration.payments.conftest import Payer, trial_balance

from .dev_chain import DevChain
from .till import CONFIRMATIONS, UsdcTill, open_usdc_till

#: What a look may end by.
PASSING = (*UNREACHABLE, LedgerError, PaymentsError)

STEPS = [
    ("INSERT", "usdc_deposits", "true"),
    ("UPDATE", "usdc_scans", "NEW.confirmed_block > 0"),
    ("INSERT", "usdc_blocks", "NEW.number > 0"),
    ("INSERT", "events", "NEW.type = 'topup.requested'"),
    ("INSERT", "events", "NEW.type = 'topup.pending'"),
    ("UPDATE", "usdc_deposits", "NEW.status = 'pending'"),
    ("INSERT", "events", "NEW.type = 'topup.credited'"),
    ("UPDATE", "usdc_deposits", "NEW.status = 'credited'"),
    ("UPDATE", "usdc_deposits", "NEW.gone_at_block IS NOT NULL"),
    ("INSERT", "events", "NEW.type = 'topup.reversed'"),
    ("UPDATE", "usdc_deposits", "NEW.status = 'reversed'"),
    ("INSERT", "events", "NEW.type = 'topup.reinstated'"),
]


@asynccontextmanager
async def broken_off(admin: asyncpg.Connection, what: str, table: str, condition: str) -> AsyncIterator[None]:
    """What is written at this step fails, with all of its transaction."""
    await admin.execute(
        "CREATE OR REPLACE FUNCTION break_off() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'broken off'; END $$"
    )
    rows = f"{what} ON {table} FOR EACH ROW WHEN ({condition})"
    await admin.execute(f"CREATE TRIGGER broken BEFORE {rows} EXECUTE FUNCTION break_off()")
    yield
    await admin.execute(f"DROP TRIGGER broken ON {table}")


async def booked_and_not_noted(till: UsdcTill, admin: asyncpg.Connection, status: str) -> None:
    """A look that dies after it has booked what makes the deposit's status this one, and before it notes that."""
    async with broken_off(admin, "UPDATE", "usdc_deposits", f"NEW.status = '{status}'"):
        with pytest.raises(PASSING):
            await till.look()


@pytest.mark.parametrize(("what", "table", "condition"), STEPS)
async def test_whatever_cannot_be_written_is_written_by_the_next_look_and_once(
    till: UsdcTill, payer: Payer, address: str, admin: asyncpg.Connection, what: str, table: str, condition: str
) -> None:
    async def look() -> None:
        """One that is broken off at this step, if it comes to it, and then one that is not."""
        async with broken_off(admin, what, table, condition):
            with suppress(*PASSING):
                await till.look()
        await till.look()

    raw = await till.dev.raw(await till.dev.pay(address))
    await look()
    assert await till.status_of(payer) == "pending"
    await till.dev.mine(CONFIRMATIONS - 1)
    await look()
    assert await till.credited(payer) == 2500
    await till.dev.reorganise(CONFIRMATIONS + 1)
    await look()
    assert await till.credited(payer) == 0
    await till.dev.send(raw)
    await till.dev.mine(CONFIRMATIONS - 1)
    await look()
    assert await till.credited(payer) == 2500

    kinds = ["requested", "pending", "credited", "reversed", "reinstated"]
    assert await till.events_of(payer) == [f"topup.{kind}" for kind in kinds]
    assert await trial_balance(till.ledger.pool) == 0


async def test_a_credit_that_was_not_noted_is_taken_back_when_its_block_leaves_the_chain(
    till: UsdcTill, payer: Payer, address: str, admin: asyncpg.Connection
) -> None:
    await till.dev.pay(address)
    await till.look()
    await till.dev.mine(CONFIRMATIONS - 1)
    await booked_and_not_noted(till, admin, "credited")
    assert await till.credited(payer) == 2500

    await till.dev.reorganise(CONFIRMATIONS + 1)
    await till.look()

    assert await till.credited(payer) == 0
    assert await till.status_of(payer) == "reversed"


async def test_a_reversal_that_was_not_noted_is_undone_when_the_deposit_returns(
    till: UsdcTill, payer: Payer, address: str, admin: asyncpg.Connection
) -> None:
    raw = await till.dev.raw(await till.dev.pay(address))
    await till.confirm()
    await till.dev.reorganise(CONFIRMATIONS + 1)
    await booked_and_not_noted(till, admin, "reversed")
    assert await till.credited(payer) == 0

    await till.dev.send(raw)
    await till.confirm()

    assert await till.credited(payer) == 2500


async def test_a_top_up_that_was_not_noted_fails_with_its_deposit(
    till: UsdcTill, payer: Payer, address: str, admin: asyncpg.Connection
) -> None:
    await till.dev.pay(address)
    await booked_and_not_noted(till, admin, "pending")
    await till.dev.reorganise(1)
    await till.look()
    await till.dev.mine(CONFIRMATIONS)
    await till.look()

    assert await till.status_of(payer) == "failed"


async def test_a_credit_that_comes_after_the_deposit_failed_is_taken_back(
    till: UsdcTill, payer: Payer, address: str
) -> None:
    """By a watcher that stood still between what it asked the chain and what it booked."""
    store = DepositStore(till.ledger.pool)
    await till.dev.pay(address)
    await till.look()
    (deposit,) = await store.open(till.dev.chain_id)
    await till.dev.reorganise(1)
    await till.look()
    await till.dev.mine(CONFIRMATIONS)
    await till.look()
    assert await till.status_of(payer) == "failed"

    await DepositBooking(till.ledger, till.rates, till.clock).credit(deposit)
    await store.set_status(deposit, "credited")
    await till.look()

    assert await till.credited(payer) == 0


async def test_a_watcher_that_is_killed_at_any_question_leaves_nothing_undone(
    ledger: Ledger, clock: Clock, dev: DevChain
) -> None:
    async with open_usdc_till(ledger, clock, dev, odd_nodes=1) as till:
        payer = await till.payer()
        await dev.pay(await till.address(payer))
        await dev.mine(CONFIRMATIONS)
        for questions in range(1, 100):
            async with till.another_watcher() as watcher:  # that dies
                till.odd[0].asked.clear()
                till.clock.advance(seconds=60)
                looking = asyncio.create_task(watcher.look_if_due())
                asked = asyncio.create_task(till.odd[0].until_asked(questions))
                await asyncio.wait({looking, asked}, return_when=asyncio.FIRST_COMPLETED)
                asked.cancel()
                if looking.done():
                    break
                looking.cancel()
                await asyncio.wait({looking})

        assert looking.exception() is None
        assert questions > 10
        assert await till.credited(payer) == 2500
        assert await till.events_of(payer) == ["topup.requested", "topup.pending", "topup.credited"]
