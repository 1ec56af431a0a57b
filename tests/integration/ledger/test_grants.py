"""Credit grants as they are stored: an expiry counts at once, is written down once, and follows from the events."""

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from ledger import Ledger, Refused, expire_grants
from ledger.errors import InsufficientFunds
from projections import check_books, rebuild
from tests.conftest import Clock
from tests.integration.ledger.stored import broken_rules
from tests.unit.ledger.scenes import A, credit, extend, grant, open_account, place, request_topup, rerate, settle, void
from tollgate.migrate import load_migrations


async def submit(ledger: Ledger, *commands: Any) -> Any:
    for command in commands:
        committed = await ledger.submit(command)
    return committed


async def found(db: asyncpg.Connection) -> list[str]:
    return [str(finding) async for finding in check_books(db)]


@pytest.fixture
async def granted(ledger: Ledger, clock: Clock) -> Ledger:
    """30 that were paid, and a grant of 100 that expires in a minute, of which a hold of 40 has set aside its part."""
    terms = {"expires_at": clock.now + timedelta(minutes=1), "priority": 10}
    await submit(ledger, open_account(), request_topup(amount=30), credit(), grant(100, **terms), place("hold_1", 40))
    return ledger


async def test_a_grant_that_expired_pays_for_no_hold_although_nobody_swept(
    granted: Ledger, clock: Clock, admin: asyncpg.Connection
) -> None:
    clock.advance(minutes=1)
    account = await granted.account(A)

    assert account is not None
    assert (account.available, account.lapsed, account.granted) == (30, 60, 40)
    with pytest.raises(InsufficientFunds):
        await granted.submit(place("hold_2", 31))
    assert (await granted.submit(place("hold_2", 30))).account.available == 0
    assert await found(admin) == []


async def test_what_has_lapsed_is_taken_off_the_books_once_by_any_number_of_sweepers(
    granted: Ledger, clock: Clock, admin: asyncpg.Connection, ledgers: list[Ledger]
) -> None:
    assert await expire_grants(granted, clock.now) == 0
    clock.advance(minutes=1)

    swept = await asyncio.gather(*[expire_grants(ledger, clock.now) for ledger in ledgers for _ in range(2)])

    assert sum(swept) == 1
    assert await posted(admin) == {"customer_available": 30, "customer_held": 40, "credit_grants": -40}
    await granted.submit(settle("hold_1", 25))
    assert [await expire_grants(granted, clock.now) for _ in range(2)] == [1, 0]
    assert await posted(admin) == {"customer_available": 30, "revenue": 25, "credit_grants": -25}
    account = await granted.account(A)
    assert account is not None
    assert (account.available, account.grants, account.grants_due) == (30, (), None)
    assert (await found(admin), await broken_rules(admin)) == ([], [])


async def posted(db: asyncpg.Connection) -> dict[str, int]:
    """The credit balance of each ledger account that has one, without what providers owe."""
    rows = await db.fetch(
        "SELECT ledger_account, credit_microcents - debit_microcents AS balance FROM trial_balance"
        " WHERE ledger_account <> 'processor_clearing'"
    )
    return {row["ledger_account"]: int(row["balance"]) for row in rows if row["balance"]}


async def test_a_rebuild_gives_the_same_grants_again(granted: Ledger, clock: Clock, admin: asyncpg.Connection) -> None:
    never = grant(7, "never")
    await submit(granted, never, extend("hold_1", 60), settle("hold_1", 50), rerate("hold_1", 35))
    await submit(granted, place("hold_2", 20))
    clock.advance(minutes=2)
    await submit(granted, place("hold_3", 3), void("hold_2"))
    before = await admin.fetch("SELECT * FROM account_states ORDER BY account_id")

    await admin.execute("UPDATE account_states SET grants = '[]', grants_due = NULL")
    assert any("grants says" in finding for finding in await found(admin))
    await rebuild(admin, [migration.sql for migration in load_migrations()], lambda done, total: None)

    assert await admin.fetch("SELECT * FROM account_states ORDER BY account_id") == before
    assert await found(admin) == []


async def test_a_charge_that_spares_a_grant_is_found(granted: Ledger, admin: asyncpg.Connection) -> None:
    await granted.submit(settle("hold_1", 40))
    await admin.execute("ALTER TABLE events DISABLE TRIGGER events_are_append_only")
    await admin.execute(
        "UPDATE events SET payload = (payload::jsonb - 'from_grants')::json WHERE type = 'hold.settled'"
    )

    assert any("grants" in finding for finding in await found(admin))


async def test_an_account_has_a_bounded_number_of_open_grants(ledger: Ledger) -> None:
    await ledger.submit(open_account())
    outcomes = await asyncio.gather(*[ledger.submit(grant(1, f"grant {n}")) for n in range(65)], return_exceptions=True)

    refused = [outcome for outcome in outcomes if isinstance(outcome, Refused)]

    assert [type(refusal).__name__ for refusal in refused] == ["TooManyGrants"]
    await submit(ledger, place("hold_1", 1), settle("hold_1", 1), grant(1, "when one is spent"))


async def test_what_a_hold_was_extended_by_after_an_expiry_costs_no_other_hold_its_part(
    granted: Ledger, clock: Clock
) -> None:
    await submit(granted, place("hold_2", 60))  # the grant is all leant on
    clock.advance(minutes=1)

    voided = await submit(granted, extend("hold_2", 90), void("hold_2"))

    assert (voided.account.granted, voided.account.lapsed, voided.account.available) == (40, 60, 30)
