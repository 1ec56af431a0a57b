"""Separate processes on one database: together they keep the rules as one process does, and one may die at any time."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from ledger import Ledger, Sweeper
from ledger.leases import LEASE_CLASS
from tests.integration.ledger import process
from tests.integration.ledger.stored import broken_rules
from tests.unit.ledger.scenes import grant, open_account

ROOT = Path(__file__).parents[3]
PROCESSES = 4


@asynccontextmanager
async def processes(
    url: str, db: asyncpg.Connection, numbers: list[int], role: str
) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    """Processes that were started at the same moment; those that still run at the end are killed."""
    await db.execute("SELECT pg_advisory_lock($1)", process.START)
    command = (sys.executable, "-m", "tests.integration.ledger.process", url)
    started = [
        await asyncio.create_subprocess_exec(
            *command, str(number), role, cwd=ROOT, stdout=asyncio.subprocess.PIPE, limit=2**20
        )
        for number in numbers
    ]
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = $1 AND NOT granted"
    try:
        async with asyncio.timeout(60):
            while await db.fetchval(waiting, process.START) < len(numbers):
                pass  # the server has answered meanwhile
        await db.execute("SELECT pg_advisory_unlock($1)", process.START)
        yield started
    finally:
        for running in started:
            if running.returncode is None:
                running.kill()
            await running.communicate()


@pytest.mark.money_bug(4)
async def test_four_processes_share_every_limit_and_every_command_that_all_of_them_submit(
    database_url: str, admin: asyncpg.Connection
) -> None:
    async with processes(database_url, admin, list(range(PROCESSES)), "share") as started:
        outputs = [(await running.communicate())[0] for running in started]

    said = [json.loads(line) for output in outputs for line in output.splitlines()]
    assert [running.returncode for running in started] == [0] * PROCESSES
    shared, own = Counter(), Counter()
    for kind, hold_id, result in said:
        (own if hold_id.startswith("own_") else shared)[(kind, result)] += 1
    everywhere = {"OpenAccount": 1, "GrantCredit": 1, "CreateKey": 1}
    for kind, times in everywhere.items():
        assert times == shared[kind, "accepted"]
        assert times * (PROCESSES - 1) == shared[kind, "replayed"]
    # The balance covers 333 holds; which of them the shared ones are depends on who came first.
    placed = shared["PlaceHold", "accepted"] + own["PlaceHold", "accepted"]
    account = await admin.fetchrow("SELECT * FROM account_states WHERE account_id = 'acct_a'")
    settled = shared["SettleHold", "accepted"]
    assert account["held"] == process.HOLD_AMOUNT * (placed - settled)
    assert account["spent"] == 20 * settled
    assert account["credited"] - account["spent"] - account["held"] >= 0
    assert placed >= process.CREDIT // process.HOLD_AMOUNT
    refused = own["PlaceHold", "InsufficientFunds"] + shared["PlaceHold", "InsufficientFunds"]
    assert placed + refused + shared["PlaceHold", "replayed"] == PROCESSES * (process.OWN_HOLDS + process.SHARED_HOLDS)
    assert await broken_rules(admin) == []


@pytest.mark.money_bug(14, 42)
async def test_a_process_killed_under_load_leaves_nothing_that_two_sweeps_do_not_finish(
    database_url: str, admin: asyncpg.Connection, ledger: Ledger, pool: asyncpg.Pool
) -> None:
    await ledger.submit(open_account())
    await ledger.submit(grant(1_000_000))
    sweeper = Sweeper(pool, ledger.submit)

    async with processes(database_url, admin, [7, 8], "serve") as (victim, survivor):
        answered = [json.loads(await victim.stdout.readline()) for _ in range(60)]
        victim.kill()
        answered += [json.loads(line) for line in (await victim.communicate())[0].splitlines()]
        await _until_lease_is_free(admin, 7)
        left_behind = await admin.fetchval("SELECT count(*) FROM open_holds WHERE worker_id = 7")
        now = datetime.now(UTC)
        ended = [await sweeper.sweep(now) for _ in range(3)]
        for _ in range(60):  # the other one goes on
            await survivor.stdout.readline()
        still_open = await admin.fetchval("SELECT count(*) FROM open_holds WHERE worker_id = 7")

    assert [0, left_behind, 0] == ended
    assert still_open == 0
    settled = await admin.fetch("SELECT hold_id FROM events WHERE type = 'hold.settled'")
    assert {hold for _, hold in answered} <= {row["hold_id"] for row in settled}
    expired = "SELECT count(*) FROM events WHERE type = 'hold.expired' AND hold_id NOT LIKE 'hold_7_%'"
    assert await admin.fetchval(expired) == 0
    assert await broken_rules(admin) == []


async def _until_lease_is_free(db: asyncpg.Connection, worker_id: int) -> None:
    held = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = $1 AND objid = $2)"
    async with asyncio.timeout(20):
        while await db.fetchval(held, LEASE_CLASS, worker_id):
            pass  # the server has answered meanwhile
