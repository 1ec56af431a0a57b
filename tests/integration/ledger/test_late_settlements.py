"""Settlements of expired holds over what is stored: by another process, after months, and read back as charges."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest
from msgspec.structs import replace

from ledger import Ledger, Refused
from ledger.charges import ChargesAsked, charges
from ledger.events import HoldSettledLate
from tests.conftest import Clock
from tests.integration.ledger.stored import broken_rules
from tests.unit.ledger.scenes import A, create_key, delete_key, expire, grant, open_account, place, rerate, settle

EXPIRED = [open_account(), grant(100), create_key(), place("hold_1", 50, key_id="key_1"), expire("hold_1")]
LATE = settle("hold_1", 30, key_id="key_1")


@pytest.mark.money_bug(15)
async def test_another_process_settles_a_hold_long_after_it_expired_and_its_key_was_deleted(
    ledgers: list[Ledger], clock: Clock, admin: asyncpg.Connection
) -> None:
    for command in [*EXPIRED, delete_key()]:
        await ledgers[0].submit(command)
    placed_at = clock.now
    clock.advance(days=40)

    committed = await ledgers[1].submit(LATE)
    again = await ledgers[2].submit(LATE)

    event = committed.stored.event
    assert isinstance(event, HoldSettledLate)
    assert (event.placed_at, event.amount_microcents, committed.account.available) == (placed_at, 30, 70)
    assert committed.key is not None
    assert (committed.key.month_spent, committed.key.is_active) == (30, False)
    assert (again.stored, again.replayed) == (committed.stored, True)
    assert await broken_rules(admin) == []


async def test_of_two_processes_that_settle_it_differently_one_is_refused(
    ledgers: list[Ledger], admin: asyncpg.Connection
) -> None:
    for command in EXPIRED:
        await ledgers[0].submit(command)

    results = await asyncio.gather(
        *[ledger.submit(replace(LATE, amount_microcents=n)) for n, ledger in enumerate(ledgers)], return_exceptions=True
    )

    assert len([result for result in results if isinstance(result, Refused)]) == len(ledgers) - 1
    assert await broken_rules(admin) == []


async def test_it_is_read_back_as_a_charge_with_its_corrections(
    ledger: Ledger, admin: asyncpg.Connection, clock: Clock
) -> None:
    for command in [*EXPIRED, LATE, rerate("hold_1", 20, key_id="key_1")]:
        await ledger.submit(command)

    asked = ChargesAsked(start=clock.now, until=clock.now + timedelta(hours=1), account_id=A)
    async with admin.transaction():
        [charge] = [each async for batch in charges(admin, 0, asked) for each in batch]

    assert isinstance(charge.event, HoldSettledLate)
    assert (charge.reference, charge.event.amount_microcents, charge.amount_microcents) == (None, 30, 20)
