"""Positions are in the order of commits, so that a reader of ``position > last`` misses nothing, whoever is slow."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import asyncpg

from ledger import Ledger
from ledger.group import Group
from ledger.group_rows import append_group, load_group
from ledger.reading import BATCH, events_after, head_position
from tests.conftest import Connect
from tests.integration.ledger.conftest import waits_for_a_lock
from tests.unit.ledger.scenes import grant, open_account, place

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Writer:
    """One group's two statements, by hand, on a connection whose transaction belongs to the test."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self.connection = connection

    async def lock(self, *commands: Any) -> Group:
        """What a group does first: lock its accounts, and decide."""
        group = Group(await load_group(self.connection, 0, commands, ()), NOON)
        assert all(outcome.refusal is None for outcome in group.decide(commands))
        return group

    async def append(self, group: Group) -> int:
        """What a group does last. Returns the head before it."""
        return await append_group(self.connection, 0, group)

    async def write(self, *commands: Any) -> int:
        return await self.append(await self.lock(*commands))


async def writer(connect: Connect) -> Writer:
    return Writer(await connect())


class Follower:
    """Reads the log as projections do: up to the head, from where it was before."""

    def __init__(self, pool: asyncpg.Pool, *, at_once: int = BATCH) -> None:
        self.seen: list[tuple[int, str]] = []
        self._pool = pool
        self._at_once = at_once

    async def read(self) -> list[tuple[int, str]]:
        last = self.seen[-1][0] if self.seen else 0
        upto = await head_position(self._pool, 0)
        async for batch in events_after(self._pool, 0, after=last, upto=upto, at_once=self._at_once):
            self.seen += [(record["position"], record["stream_id"]) for record in batch]
        return self.seen


async def test_a_transaction_that_began_earlier_and_commits_later_is_not_missed(
    connect: Connect, pool: asyncpg.Pool
) -> None:
    early, late, follower = await writer(connect), await writer(connect), Follower(pool)

    async with early.connection.transaction():
        group = await early.lock(open_account("acct_early"))
        async with late.connection.transaction():
            await late.write(open_account("acct_late"))
        after_the_late_one = list(await follower.read())
        await early.append(group)
        before_the_commit = list(await follower.read())

    assert [(1, "acct_late")] == after_the_late_one == before_the_commit
    assert await follower.read() == [(1, "acct_late"), (2, "acct_early")]


async def test_whoever_appends_while_another_has_not_committed_waits_and_comes_after(
    connect: Connect, pool: asyncpg.Pool, admin: asyncpg.Connection
) -> None:
    first, second, follower = await writer(connect), await writer(connect), Follower(pool)

    async with first.connection.transaction():
        await first.write(open_account("acct_first"))
        waiting = asyncio.create_task(second.write(open_account("acct_second")))
        await waits_for_a_lock(admin, second.connection.get_server_pid())
        while_both_are_open = list(await follower.read())
    await waiting

    assert while_both_are_open == []
    assert await follower.read() == [(1, "acct_first"), (2, "acct_second")]


async def test_a_transaction_that_is_rolled_back_leaves_no_gap(
    connect: Connect, pool: asyncpg.Pool, admin: asyncpg.Connection
) -> None:
    first, second, follower = await writer(connect), await writer(connect), Follower(pool)

    transaction = first.connection.transaction()
    await transaction.start()
    await first.write(open_account("acct_first"))
    waiting = asyncio.create_task(second.write(open_account("acct_second")))
    await waits_for_a_lock(admin, second.connection.get_server_pid())
    await transaction.rollback()
    await waiting

    assert await follower.read() == [(1, "acct_second")]


async def test_a_reader_never_waits_for_a_writer(connect: Connect, pool: asyncpg.Pool) -> None:
    writing, follower = await writer(connect), Follower(pool)

    async with writing.connection.transaction(), asyncio.timeout(20):
        await writing.write(open_account("acct_open"))
        seen = list(await follower.read())

    assert seen == []


async def test_a_follower_of_a_busy_log_sees_every_position_once_and_in_order(
    connect: Connect, pool: asyncpg.Pool
) -> None:
    follower, newcomer = Follower(pool, at_once=7), Follower(pool, at_once=7)

    async def write_much(name: str) -> None:
        one = await writer(connect)
        for n in range(40):
            async with one.connection.transaction():
                await one.write(open_account(f"acct_{name}_{n}"))
        await one.connection.close()

    writers = asyncio.gather(*[write_much(name) for name in "abcd"])
    while not writers.done():
        await follower.read()
    await writers

    assert [position for position, _ in await follower.read()] == list(range(1, 161))
    assert await newcomer.read() == follower.seen


async def test_groups_of_one_account_decide_one_after_the_other_and_those_of_two_accounts_do_not_wait(
    connect: Connect, admin: asyncpg.Connection, ledger: Ledger
) -> None:
    for command in (open_account("acct_a"), grant(10), open_account("acct_b"), grant(10, account="acct_b")):
        await ledger.submit(command)
    first, same, other = [await writer(connect) for _ in range(3)]

    async with same.connection.transaction():
        async with first.connection.transaction():
            await first.write(place("hold_1", 6))
            waiting = asyncio.create_task(same.lock(grant(1, "another")))
            await waits_for_a_lock(admin, same.connection.get_server_pid())
            async with asyncio.timeout(20), other.connection.transaction():
                await other.lock(place("hold_2", 6, stream_id="acct_b"))
        group = await waiting

    assert group.books.accounts["acct_a"].held == 6


async def test_a_stream_that_another_opens_between_our_lock_and_our_look_at_what_was_there_is_a_replay(
    connect: Connect, admin: asyncpg.Connection, ledger: Ledger
) -> None:
    other, watcher = Writer(admin), await connect()  # only the owner may lock the table

    async with admin.transaction():
        await admin.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        opening = asyncio.create_task(ledger.submit(open_account("acct_a")))
        await somebody_waits_for_events(watcher)
        await other.write(open_account("acct_a"))
    committed = await opening

    assert (committed.replayed, committed.account.seq) == (True, 1)


async def somebody_waits_for_events(db: asyncpg.Connection) -> None:
    waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = $1 AND NOT granted)"
    events = await db.fetchval("SELECT oid FROM pg_class WHERE relname = 'events'")
    async with asyncio.timeout(20):
        while not await db.fetchval(waiting, events):
            pass  # the server has answered meanwhile
