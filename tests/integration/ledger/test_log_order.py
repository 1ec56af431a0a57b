"""Positions are in the order of commits, so that a reader of ``position > last`` misses nothing, whoever is slow."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import asyncpg

from ledger.reading import events_after, head_position
from ledger.sql import load_queries
from tests.conftest import Connect
from tests.integration.ledger.conftest import waits_for_a_lock

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
QUERIES = load_queries("ledger")
NOTHING: list[Any] = []


async def lock(connection: asyncpg.Connection, account: str) -> None:
    """What a group does first."""
    await connection.fetchrow(QUERIES["lock_group"], 0, [account], NOTHING, NOTHING, NOTHING, NOTHING)


async def append(connection: asyncpg.Connection, account: str, seq: int = 1) -> int:
    """What a group does last: one event, by hand. Returns the head before it."""
    state = [[account], ["USD"], [seq], [NOON], [0], [0], [0]]
    event = [[account], [seq], ["account.opened"], [NOON], [None], [0], [0], [f"open{seq}"], [None]]
    payload = ['{"type":"account.opened","currency":"USD"}']
    head: int = await connection.fetchval(
        QUERIES["append_group"], 0, *state, *[NOTHING] * 11, *[NOTHING] * 15, NOTHING, *event, payload
    )
    return head


class Follower:
    """Reads the log as projections do: up to the head, from where it was before."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self.seen: list[tuple[int, str]] = []
        self._pool = pool

    async def read(self) -> list[tuple[int, str]]:
        last = self.seen[-1][0] if self.seen else 0
        upto = await head_position(self._pool, 0)
        async for batch in events_after(self._pool, 0, after=last, upto=upto):
            self.seen += [(record["position"], record["stream_id"]) for record in batch]
        return self.seen


async def test_a_transaction_that_began_earlier_and_commits_later_is_not_missed(
    connect: Connect, pool: asyncpg.Pool
) -> None:
    early, late, follower = await connect(), await connect(), Follower(pool)

    async with early.transaction():
        await lock(early, "acct_early")
        async with late.transaction():
            await lock(late, "acct_late")
            await append(late, "acct_late")
        after_the_late_one = list(await follower.read())
        await append(early, "acct_early")
        before_the_commit = list(await follower.read())

    assert [(1, "acct_late")] == after_the_late_one == before_the_commit
    assert [(1, "acct_late"), (2, "acct_early")] == await follower.read()


async def test_whoever_appends_while_another_has_not_committed_waits_and_comes_after(
    connect: Connect, pool: asyncpg.Pool, admin: asyncpg.Connection
) -> None:
    first, second, follower = await connect(), await connect(), Follower(pool)

    async with first.transaction():
        await append(first, "acct_first")
        waiting = asyncio.create_task(append(second, "acct_second"))
        await waits_for_a_lock(admin, second.get_server_pid())
        while_both_are_open = list(await follower.read())
    await waiting

    assert [] == while_both_are_open
    assert [(1, "acct_first"), (2, "acct_second")] == await follower.read()


async def test_a_transaction_that_is_rolled_back_leaves_no_gap(
    connect: Connect, pool: asyncpg.Pool, admin: asyncpg.Connection
) -> None:
    first, second, follower = await connect(), await connect(), Follower(pool)

    transaction = first.transaction()
    await transaction.start()
    await append(first, "acct_first")
    waiting = asyncio.create_task(append(second, "acct_second"))
    await waits_for_a_lock(admin, second.get_server_pid())
    await transaction.rollback()
    await waiting

    assert [(1, "acct_second")] == await follower.read()


async def test_a_reader_never_waits_for_a_writer(connect: Connect, pool: asyncpg.Pool) -> None:
    writer, follower = await connect(), Follower(pool)

    async with writer.transaction(), asyncio.timeout(20):
        await append(writer, "acct_open")
        seen = list(await follower.read())

    assert [] == seen


async def test_a_follower_of_a_busy_log_sees_every_position_once_and_in_order(
    connect: Connect, pool: asyncpg.Pool
) -> None:
    follower = Follower(pool)

    async def writer(name: str) -> None:
        connection = await connect()
        for seq in range(1, 41):
            await append(connection, f"acct_{name}", seq)
        await connection.close()

    writers = asyncio.gather(*[writer(name) for name in "abcd"])
    while not writers.done():
        await follower.read()
    await writers

    assert list(range(1, 161)) == [position for position, _ in await follower.read()]
