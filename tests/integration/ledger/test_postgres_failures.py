"""Postgres that hangs, is cut off, is full or cannot be written: nobody waits for ever, and nothing is done twice."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
import pytest_asyncio

from ledger import Ledger, LedgerOverloaded, LedgerUnavailable
from tests.conftest import APP_SETTINGS, Clock, Connect
from tests.faults.network import Link
from tests.integration.ledger.stored import broken_rules
from tests.unit.ledger.scenes import A, B, grant, open_account, place, settle

#: Short enough for a test. What waits behind a try that hangs has waited too long when that is given up.
LIMITS = {"retry_for_s": 0.5, "try_timeout_s": 1.5}

OpenOver = Callable[..., Awaitable[Ledger]]


class PickyLink(Link):
    """Stalls as these bytes come by, once; they arrive when it heals."""

    stalls_at: bytes | None = None

    def saw(self, data: bytes) -> None:
        if self.stalls_at is not None and self.stalls_at in data:
            self.stalls_at = None
            self.stall()


@pytest_asyncio.fixture
async def link(database_url: str) -> AsyncIterator[PickyLink]:
    """The committer's way to Postgres."""
    link = PickyLink(urlsplit(database_url).port or 5432)
    await link.open()
    yield link
    await link.close()


def over(link: Link, database_url: str) -> str:
    parts = urlsplit(database_url)
    login, _, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{link.port}"))


async def insist(ledger: Ledger, command: Any) -> Any:
    """Submit until the outcome is known."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await ledger.submit(command)
            except LedgerUnavailable:
                await asyncio.sleep(0)  # it may have said so at once


@pytest_asyncio.fixture
async def open_over(pool: asyncpg.Pool, clock: Clock) -> AsyncIterator[OpenOver]:
    """Opens a ledger whose committer connects in this way, and gives up soon."""
    ledgers: list[Ledger] = []

    async def opened(connect: Connect, **limits: Any) -> Ledger:
        ledgers.append(await Ledger.open(pool, connect, clock, **{**LIMITS, **limits}))
        return ledgers[-1]

    yield opened
    async with asyncio.timeout(30):
        for ledger in ledgers:
            await ledger.close()


@pytest_asyncio.fixture
async def far_ledger(open_over: OpenOver, link: PickyLink, database_url: str) -> Ledger:
    """A ledger over the link, with an account and a credit of 100."""
    url = over(link, database_url)
    ledger = await open_over(lambda: asyncpg.connect(url, server_settings=APP_SETTINGS))
    for command in (open_account(), grant(100)):
        await insist(ledger, command)
    return ledger


@pytest.mark.parametrize("stage", [b"BEGIN", b"acct_a", b"hold_1"])  # at its beginning, its lock, its append
async def test_a_connection_that_nothing_comes_back_from_is_given_up_and_the_next_one_used(
    far_ledger: Ledger, link: PickyLink, admin: asyncpg.Connection, stage: bytes
) -> None:
    link.stalls_at = stage

    async with asyncio.timeout(30):
        with pytest.raises(LedgerUnavailable):
            await far_ledger.submit(place("hold_1", 60))
    link.heal()
    committed = await insist(far_ledger, place("hold_1", 60))

    assert committed.account.held == 60
    assert await broken_rules(admin) == []


async def test_a_commit_that_arrives_after_its_caller_gave_up_is_found_by_the_same_command_again(
    far_ledger: Ledger, link: PickyLink, admin: asyncpg.Connection
) -> None:
    link.stalls_at = b"COMMIT"
    async with asyncio.timeout(30):
        with pytest.raises(LedgerUnavailable):
            await far_ledger.submit(place("hold_1", 60))

    link.heal()
    committed = await insist(far_ledger, place("hold_1", 60))
    settled = await insist(far_ledger, settle("hold_1", 50))

    assert (committed.account.held, settled.account.available, settled.account.held) == (60, 50, 0)
    assert await admin.fetchval("SELECT count(*) FROM events WHERE type = 'hold.placed'") == 1
    assert await broken_rules(admin) == []


async def test_a_statement_that_hangs_is_given_up_and_disturbs_nobody_afterwards(
    open_over: OpenOver, connect: Connect, admin: asyncpg.Connection
) -> None:
    ledger = await open_over(connect)
    for command in (open_account(), grant(100), open_account(B)):
        await insist(ledger, command)
    blocker = await connect()
    async with blocker.transaction(), asyncio.timeout(30):
        await blocker.execute("SELECT FROM account_states WHERE account_id = $1 FOR UPDATE", A)
        with pytest.raises(LedgerUnavailable):
            await ledger.submit(place("hold_1", 60))
        other = await insist(ledger, grant(5, account=B))
    await blocker.close()

    committed = await insist(ledger, place("hold_1", 60))

    assert (other.stored.seq, committed.account.held) == (2, 60)
    assert await broken_rules(admin) == []


@pytest.mark.money_bug(43)
async def test_what_waits_behind_a_group_that_is_stuck_is_refused_untaken_and_so_is_what_comes_later(
    far_ledger: Ledger, link: PickyLink, admin: asyncpg.Connection
) -> None:
    link.stall()
    first = asyncio.create_task(far_ledger.submit(place("hold_first", 1)))
    await asyncio.sleep(0)
    behind = [asyncio.create_task(far_ledger.submit(place(f"hold_{n}", 1))) for n in range(3)]

    async with asyncio.timeout(30):
        results = await asyncio.gather(first, *behind, return_exceptions=True)
    link.heal()
    await insist(far_ledger, place("hold_after", 1))

    assert [type(result) for result in results] == [LedgerUnavailable, *[LedgerOverloaded] * 3]
    placed = await admin.fetch("SELECT hold_id FROM events WHERE type = 'hold.placed'")
    assert "hold_after" in {row["hold_id"] for row in placed} <= {"hold_first", "hold_after"}


async def test_behind_a_group_that_is_there_for_too_long_a_new_command_is_refused_at_the_door(
    open_over: OpenOver, link: PickyLink, database_url: str
) -> None:
    url = over(link, database_url)
    ledger = await open_over(
        lambda: asyncpg.connect(url, server_settings=APP_SETTINGS),
        retry_for_s=0.2,
        try_timeout_s=20.0,
        max_waiting=10**9,
    )
    await insist(ledger, open_account())
    link.stall()
    stuck = asyncio.create_task(ledger.submit(grant(1)))

    refused_at_the_door = False
    async with asyncio.timeout(5):
        while not refused_at_the_door:
            waiting = asyncio.create_task(ledger.submit(grant(2, "again")))
            await asyncio.sleep(0)
            refused_at_the_door = waiting.done() and isinstance(waiting.exception(), LedgerOverloaded)
            waiting.cancel()

    assert not stuck.done()
    link.heal()
    await insist(ledger, grant(1))
    await asyncio.gather(stuck, return_exceptions=True)


async def test_without_a_connection_to_be_had_callers_wait_for_one_and_then_hear_of_it(
    open_over: OpenOver, server: asyncpg.Connection, database_url: str, admin: asyncpg.Connection
) -> None:
    login = f"tollgate_test_{secrets.token_hex(4)}"
    await server.execute(f"CREATE ROLE {login} LOGIN PASSWORD 'p' CONNECTION LIMIT 0 IN ROLE tollgate_app")
    parts = urlsplit(database_url)
    host = parts.netloc.rpartition("@")[2]
    url = urlunsplit(parts._replace(netloc=f"{login}:p@{host}"))
    refusals: list[Exception] = []

    async def connect() -> asyncpg.Connection:
        try:
            return await asyncpg.connect(url, server_settings=APP_SETTINGS)
        except asyncpg.PostgresError as error:
            refusals.append(error)
            raise

    ledger = await open_over(connect)
    with pytest.raises(LedgerUnavailable):
        await ledger.submit(open_account())
    waiting = asyncio.create_task(insist(ledger, open_account()))
    await asyncio.sleep(0)
    await server.execute(f"ALTER ROLE {login} CONNECTION LIMIT 1")

    committed = await waiting
    await ledger.close()
    await server.execute(f"DROP ROLE {login}")

    assert {type(refusal) for refusal in refusals} == {asyncpg.TooManyConnectionsError}
    assert (committed.stored.seq, committed.replayed) == (1, False)


async def test_a_login_that_is_refused_is_no_fault_of_the_command(open_over: OpenOver, database_url: str) -> None:
    nowhere = urlunsplit(urlsplit(database_url)._replace(path="/there_is_no_such_database"))
    ledger = await open_over(lambda: asyncpg.connect(nowhere))

    with pytest.raises(LedgerUnavailable):
        await ledger.submit(open_account())


@pytest.mark.money_bug(17)
@pytest.mark.parametrize("code", ["53100", "53200", "58030", "57P04"])
async def test_a_disk_or_memory_that_is_full_or_broken_refuses_nobody_and_is_tried_again(
    open_over: OpenOver, connect: Connect, admin: asyncpg.Connection, code: str
) -> None:
    ledger = await open_over(connect)
    await insist(ledger, open_account())
    await admin.execute(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN RAISE EXCEPTION 'no space left on device' USING ERRCODE = '{code}'; END $$;"
        " CREATE TRIGGER fails BEFORE INSERT ON events EXECUTE FUNCTION fail()"
    )
    commands = [grant(1, f"grant_{n}") for n in range(3)]

    refused = await asyncio.gather(*[ledger.submit(command) for command in commands], return_exceptions=True)
    await admin.execute("DROP TRIGGER fails ON events")
    committed = await asyncio.gather(*[insist(ledger, command) for command in commands])

    assert [type(refusal) for refusal in refused] == [LedgerUnavailable] * 3
    assert [each.replayed for each in committed] == [False] * 3
    assert await broken_rules(admin) == []


async def test_a_server_that_cannot_be_written_is_left_for_the_one_that_can(
    open_over: OpenOver, connect: Connect, admin: asyncpg.Connection
) -> None:
    tried: list[asyncpg.Connection] = []

    async def failing_over() -> asyncpg.Connection:
        """The first connections are to a server that has become a standby."""
        tried.append(await connect())
        if len(tried) < 4:
            await tried[-1].execute("SET default_transaction_read_only = on")
        return tried[-1]

    ledger = await open_over(failing_over, retry_for_s=20.0)

    committed = await ledger.submit(open_account())

    assert (committed.stored.seq, len(tried)) == (1, 4)
    assert all(connection.is_closed() for connection in tried[:-1])


@pytest.mark.parametrize("submits", [True, False])
async def test_closing_ends_although_nothing_comes_back_from_postgres(
    far_ledger: Ledger, link: PickyLink, submits: bool
) -> None:
    link.stall()
    submitted = [asyncio.create_task(far_ledger.submit(grant(1, "late")))] if submits else []
    await asyncio.sleep(0)

    async with asyncio.timeout(20):
        await far_ledger.close()

    assert all(isinstance(task.exception(), LedgerUnavailable) for task in submitted)
