"""Connections break at any moment: each command ends in exactly one event or in none, and asking again tells which."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from ledger import Committed, ExtendHold, Ledger, LedgerUnavailable, RecordPriceEvent, Refused
from tests.conftest import APP_SETTINGS, Clock
from tests.integration.ledger.stored import broken_rules
from tests.integration.ledger.wire_cutter import Cut, WireCutter, wire_to
from tests.strategies import prefixed
from tests.unit.ledger.scenes import (
    create_key,
    delete_key,
    draw,
    extend,
    grant,
    open_account,
    place,
    publish,
    settle,
    void,
)


@pytest_asyncio.fixture
async def wire(database_url: str) -> AsyncIterator[tuple[WireCutter, str]]:
    async with wire_to(database_url) as wire:
        yield wire


@pytest_asyncio.fixture
async def far_ledger(pool: asyncpg.Pool, wire: tuple[WireCutter, str], clock: Clock) -> AsyncIterator[Ledger]:
    """A ledger whose committer reaches Postgres over the wire."""

    async def connect() -> asyncpg.Connection:
        return await asyncpg.connect(wire[1], server_settings=APP_SETTINGS)

    ledger = await Ledger.open(pool, connect, clock)
    yield ledger
    async with asyncio.timeout(30):
        await ledger.close()


#: Every command, with what has to be there before it. Each takes all there is, so that a second try has nothing left.
COMMANDS = [
    ([], open_account()),
    ([open_account()], grant(100)),
    ([open_account(), grant(100)], create_key(rpm=1, budget=100)),
    ([open_account(), create_key()], delete_key()),
    ([open_account(), grant(100), create_key(rpm=1, budget=100)], place("hold_1", 100, key_id="key_1")),
    ([open_account(), grant(100), place("hold_1", 1)], extend("hold_1", 100)),
    ([open_account(), grant(100), place("hold_1", 100)], draw("hold_1", 100)),
    ([open_account(), grant(100), place("hold_1", 100)], settle("hold_1", 150)),
    ([open_account(), grant(100), place("hold_1", 100)], void("hold_1")),
    ([], publish()),
]


@pytest.mark.money_bug(17)
@pytest.mark.parametrize("cut", [Cut.BEFORE_COMMIT, Cut.AFTER_COMMIT])
async def test_a_command_whose_connection_breaks_at_the_commit_is_carried_out_once_and_is_answered(
    far_ledger: Ledger, wire: tuple[WireCutter, str], admin: asyncpg.Connection, cut: Cut
) -> None:
    for number, (first, command) in enumerate(COMMANDS):
        for preparation in first:
            await far_ledger.submit(_renamed(preparation, f"{number}_"))
        renamed = _renamed(command, f"{number}_")
        before = await admin.fetchval("SELECT count(*) FROM events")
        wire[0].cut_next(cut)

        committed = await far_ledger.submit(renamed)

        written = await admin.fetchval("SELECT count(*) FROM events") - before
        is_extension_again = isinstance(command, ExtendHold) and cut is Cut.AFTER_COMMIT
        assert (2 if is_extension_again else 1) == written, command
        assert (cut is Cut.AFTER_COMMIT and not is_extension_again) == committed.replayed, command
    assert len(COMMANDS) == wire[0].cuts
    assert await broken_rules(admin) == []


async def test_a_whole_group_whose_answer_is_lost_is_carried_out_once_and_answered_in_full(
    far_ledger: Ledger, wire: tuple[WireCutter, str], admin: asyncpg.Connection
) -> None:
    await far_ledger.submit(open_account())
    await far_ledger.submit(grant(1_000))
    wire[0].cut_next(Cut.AFTER_COMMIT)

    results = await asyncio.gather(*[far_ledger.submit(place(f"hold_{n}", 100)) for n in range(10)])

    assert [result.replayed for result in results] == [True] * 10
    assert await admin.fetchval("SELECT count(*) FROM events") == 12
    assert await broken_rules(admin) == []


async def test_commands_flow_on_while_connections_are_killed_and_each_is_carried_out_once(
    ledger: Ledger, admin: asyncpg.Connection
) -> None:
    await ledger.submit(open_account())
    await ledger.submit(grant(1_000_000))
    killed = 0
    results: list[tuple[Any, Committed]] = []

    async def kill_again_and_again() -> None:
        nonlocal killed
        seen = 0
        while killed < KILLS:
            while (events := await admin.fetchval("SELECT count(*) FROM events")) == seen:
                pass  # they need to get somewhere between two kills
            seen = events
            for _ in range(killed % 9):  # each time at another moment of a group
                await admin.fetchval("SELECT 1")
            killed += await admin.fetchval(_KILL_COMMITTERS)

    async def customer(number: int) -> None:
        n = 0
        while n < 3 or killed < KILLS:
            hold = f"hold_{number}_{n}"
            commands = (place(hold, 20), draw(hold, 3), settle(hold, 10))
            results.extend([(command, await _insist(ledger, command)) for command in commands])
            n += 1

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(kill_again_and_again())
        for number in range(10):
            tasks.create_task(customer(number))

    assert await admin.fetchval("SELECT count(*) FROM events") == 2 + len(results)
    assert await broken_rules(admin) == []
    for command, committed in results:
        again = await ledger.submit(command)
        assert (committed.stored, True) == (again.stored, again.replayed)
    account = await ledger.account("acct_a")
    assert account is not None
    assert (account.spent, account.held) == (len(results) // 3 * 13, 0)


KILLS = 12
_KILL_COMMITTERS = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE query ~ 'lock_group|append_group|BEGIN|COMMIT' AND datname = current_database() AND pid <> pg_backend_pid()
"""


async def _insist(ledger: Ledger, command: Any) -> Committed:
    """Submit until the outcome is known, as the gate does."""
    while True:
        try:
            return await ledger.submit(command)
        except LedgerUnavailable:
            await asyncio.sleep(0)  # it may have said so at once
        except Refused as refusal:
            raise AssertionError(f"{command}: {refusal}") from refusal


def _renamed(command: Any, prefix: str) -> Any:
    return command if isinstance(command, RecordPriceEvent) else prefixed(command, prefix)
