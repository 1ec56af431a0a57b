"""The holds of a dead worker end, those of a living one never do, and those past their time end at once."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio

from ledger import Committed, ExpireHold, Lease, Ledger, Sweeper, new_worker_id
from ledger.leases import LEASE_CLASS
from ledger.sweep import AT_ONCE
from tests.conftest import APP_SETTINGS, Clock, Connect
from tests.faults.network import Link
from tests.integration.ledger.conftest import waits_for_a_lock
from tests.integration.ledger.stored import broken_rules
from tests.unit.ledger.scenes import A, extend, grant, open_account, place, settle

ALIVE, DEAD = 1, 2_147_483_647
HOLDER = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = $1 AND objid = $2 AND granted"


@pytest_asyncio.fixture
async def funded_ledger(ledger: Ledger) -> Ledger:
    await ledger.submit(open_account())
    await ledger.submit(grant(1_000))
    return ledger


@pytest.fixture
def sweeper(pool: asyncpg.Pool, funded_ledger: Ledger) -> Sweeper:
    return Sweeper(pool, funded_ledger.submit)


@pytest_asyncio.fixture
async def lease(connect: Connect) -> AsyncIterator[Lease]:
    """The lease of the worker that is alive."""
    lease = Lease(connect, ALIVE)
    await lease.start()
    yield lease
    await lease.close()


class OneConnection:
    """A pool that gives this connection to whoever asks."""

    def __init__(self, connection: asyncpg.pool.PoolConnectionProxy) -> None:
        self._connection = connection

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[asyncpg.pool.PoolConnectionProxy]:
        yield self._connection


async def open_holds(ledger: Ledger) -> list[str]:
    return [hold.hold_id for hold in await ledger.open_holds(A)]


async def connect_over(link: Link, database_url: str) -> asyncpg.Connection:
    return await asyncpg.connect(database_url, host="127.0.0.1", port=link.port, server_settings=APP_SETTINGS)


async def lease_is_held(db: asyncpg.Connection, worker_id: int) -> bool:
    held = (
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = $1 AND objid = $2 AND granted)"
    )
    return bool(await db.fetchval(held, LEASE_CLASS, worker_id))


@pytest.mark.money_bug(16)
async def test_the_holds_of_a_dead_worker_end_with_the_second_sweep_and_those_of_a_living_one_stay(
    funded_ledger: Ledger, sweeper: Sweeper, lease: Lease, clock: Clock, admin: asyncpg.Connection
) -> None:
    for command in (
        place("of_the_living", 10, worker_id=ALIVE),
        place("of_the_dead_1", 10, worker_id=DEAD),
        place("of_the_dead_2", 10, worker_id=DEAD),
    ):
        await funded_ledger.submit(command)

    ended = [await sweeper.sweep(clock.now) for _ in range(4)]

    assert ended == [0, 2, 0, 0]
    assert await open_holds(funded_ledger) == ["of_the_living"]
    last: Any = (await funded_ledger.stream(A))[-1].event
    assert (last.__struct_config__.tag, last.reason) == ("hold.expired", "worker_gone")
    assert await broken_rules(admin) == []


async def test_a_worker_that_is_back_by_the_second_sweep_keeps_its_holds(
    funded_ledger: Ledger, sweeper: Sweeper, connect: Connect, clock: Clock
) -> None:
    await funded_ledger.submit(place("hold_1", 10, worker_id=DEAD))
    await sweeper.sweep(clock.now)
    lease = Lease(connect, DEAD)
    await lease.start()

    ended = [await sweeper.sweep(clock.now) for _ in range(3)]
    await lease.close()

    assert ended == [0, 0, 0]
    assert await open_holds(funded_ledger) == ["hold_1"]


async def test_a_worker_is_dead_after_two_sweeps_in_a_row_and_not_after_two_in_all(
    funded_ledger: Ledger, sweeper: Sweeper, connect: Connect, clock: Clock, admin: asyncpg.Connection
) -> None:
    await funded_ledger.submit(place("hold_1", 10, worker_id=DEAD))
    await sweeper.sweep(clock.now)
    lease = Lease(connect, DEAD)
    await lease.start()
    await sweeper.sweep(clock.now)
    await lease.close()
    await _until_free(admin, DEAD)  # the server notices some time after the connection is gone

    first_free_again = await sweeper.sweep(clock.now)
    second_free_again = await sweeper.sweep(clock.now)

    assert (first_free_again, second_free_again) == (0, 1)


async def test_an_overdue_hold_ends_with_the_first_sweep_even_of_a_living_worker(
    funded_ledger: Ledger, sweeper: Sweeper, lease: Lease, clock: Clock
) -> None:
    await funded_ledger.submit(place("hold_1", 10, worker_id=ALIVE, lifetime_s=60))

    on_time = await sweeper.sweep(clock.now + timedelta(seconds=60))
    overdue = await sweeper.sweep(clock.now + timedelta(seconds=60, microseconds=1))

    assert (on_time, overdue) == (0, 1)
    last: Any = (await funded_ledger.stream(A))[-1].event
    assert (last.__struct_config__.tag, last.reason) == ("hold.expired", "time_limit")


@pytest.mark.money_bug(15)
async def test_a_hold_that_is_extended_while_the_sweep_is_under_way_lives_on(
    funded_ledger: Ledger, pool: asyncpg.Pool, lease: Lease, clock: Clock
) -> None:
    await funded_ledger.submit(place("hold_1", 10, worker_id=ALIVE, lifetime_s=60))
    clock.advance(seconds=61)

    async def submit_after_the_extension(command: ExpireHold) -> Committed:
        await funded_ledger.submit(extend("hold_1", 20, lifetime_s=60))
        return await funded_ledger.submit(command)

    ended = await Sweeper(pool, submit_after_the_extension).sweep(clock.now)

    assert ended == 0
    (hold,) = await funded_ledger.open_holds(A)
    assert (20, clock.now + timedelta(seconds=60)) == (hold.held, hold.expires_at)


async def test_of_a_sweep_and_a_settlement_of_the_same_hold_one_ends_it_and_it_is_charged_once(
    funded_ledger: Ledger, pool: asyncpg.Pool, clock: Clock, admin: asyncpg.Connection
) -> None:
    sweepers = [Sweeper(pool, funded_ledger.submit) for _ in range(2)]
    await funded_ledger.submit(place("makes_it_suspect", 1, worker_id=DEAD))
    for sweeper in sweepers:
        await sweeper.sweep(clock.now)
    for n in range(12):
        await funded_ledger.submit(place(f"hold_{n}", 10, worker_id=DEAD))

        await asyncio.gather(
            funded_ledger.submit(settle(f"hold_{n}", 5)), *[sweeper.sweep(clock.now) for sweeper in sweepers]
        )

        events = [stored.event for stored in await funded_ledger.events_of_hold(A, f"hold_{n}")]
        ends = [event.__struct_config__.tag for event in events[1:]]
        assert ends in (["hold.settled"], ["hold.expired", "hold.settled_late"])
    for _ in range(2):
        await sweepers[0].sweep(clock.now)
    assert await open_holds(funded_ledger) == []
    assert await broken_rules(admin) == []


async def test_several_sweepers_end_each_hold_once(
    funded_ledger: Ledger, pool: asyncpg.Pool, clock: Clock, admin: asyncpg.Connection
) -> None:
    for n in range(20):
        await funded_ledger.submit(place(f"hold_{n}", 10, worker_id=DEAD, lifetime_s=n % 2 * 60))
    clock.advance(seconds=1)
    sweepers = [Sweeper(pool, funded_ledger.submit) for _ in range(3)]

    for _ in range(6):
        await asyncio.gather(*[sweeper.sweep(clock.now) for sweeper in sweepers])

    assert await open_holds(funded_ledger) == []
    assert await admin.fetchval("SELECT count(*) FROM events") == 2 + 20 + 20
    assert await broken_rules(admin) == []


async def test_sweepers_at_the_same_time_do_not_take_each_other_for_the_worker(
    funded_ledger: Ledger, sweeper: Sweeper, pool: asyncpg.Pool, clock: Clock
) -> None:
    await funded_ledger.submit(place("hold_1", 10, worker_id=DEAD))
    async with pool.acquire() as connection, connection.transaction():  # whose locks last until it ends
        one_connection: Any = OneConnection(connection)
        await Sweeper(one_connection, funded_ledger.submit).sweep(clock.now)

        ended = [await sweeper.sweep(clock.now) for _ in range(2)]

    assert ended == [0, 1]


async def test_a_sweep_ends_more_holds_than_it_takes_up_at_once(
    funded_ledger: Ledger, sweeper: Sweeper, clock: Clock, admin: asyncpg.Connection
) -> None:
    count = AT_ONCE + 4
    holds = [place(f"hold_{n}", 1, worker_id=DEAD) for n in range(count)]
    await asyncio.gather(*[funded_ledger.submit(hold) for hold in holds])

    ended = [await sweeper.sweep(clock.now) for _ in range(3)]

    assert ended == [0, count, 0]
    assert await broken_rules(admin) == []


async def test_a_sweep_frees_the_leases_that_it_tried(
    funded_ledger: Ledger, sweeper: Sweeper, connect: Connect, clock: Clock, admin: asyncpg.Connection
) -> None:
    await funded_ledger.submit(place("hold_1", 10, worker_id=DEAD))

    await sweeper.sweep(clock.now)

    assert not await lease_is_held(admin, DEAD)


async def test_a_lease_is_held_from_its_start_to_its_close_and_by_one_worker_only(
    connect: Connect, admin: asyncpg.Connection
) -> None:
    worker_id = new_worker_id()
    lease, second = Lease(connect, worker_id), Lease(connect, worker_id)
    await lease.start()
    assert await lease_is_held(admin, worker_id)

    starting = asyncio.create_task(second.start())
    await waits_for_a_lock(admin, await _pid_waiting_for(admin, worker_id))
    assert not starting.done()
    await lease.close()
    await starting

    assert await lease_is_held(admin, worker_id)
    await second.close()
    await _until_free(admin, worker_id)


async def test_a_lease_whose_connection_is_killed_is_taken_again(lease: Lease, admin: asyncpg.Connection) -> None:
    pid = await admin.fetchval(HOLDER, LEASE_CLASS, ALIVE)

    await admin.execute("SELECT pg_terminate_backend($1)", pid)

    async with asyncio.timeout(20):
        while (again := await admin.fetchval(HOLDER, LEASE_CLASS, ALIVE)) in (None, pid):
            pass  # the server has answered meanwhile
    assert again != pid


async def test_a_lease_that_its_server_no_longer_has_is_taken_again_although_nothing_says_so(
    connect: Connect, database_url: str, admin: asyncpg.Connection
) -> None:
    link = Link(urlsplit(database_url).port or 5432)
    await link.open()
    ways = [lambda: connect_over(link, database_url)]
    lease = Lease(lambda: ways.pop()() if ways else connect(), ALIVE)
    await lease.start()
    pid = await admin.fetchval(HOLDER, LEASE_CLASS, ALIVE)

    link.stall()
    await admin.execute("SELECT pg_terminate_backend($1)", pid)

    async with asyncio.timeout(20):
        while (again := await admin.fetchval(HOLDER, LEASE_CLASS, ALIVE)) in (None, pid):
            pass  # the server has answered meanwhile
    assert again != pid
    await lease.close()
    await link.close()


async def test_a_lease_that_only_seems_lost_is_not_let_go_before_another_connection_is_there(
    connect: Connect, database_url: str, admin: asyncpg.Connection
) -> None:
    link = Link(urlsplit(database_url).port or 5432)
    await link.open()
    asked_again, let_in = asyncio.Event(), asyncio.Event()
    connections: list[asyncpg.Connection] = []

    async def slow_to_let_in() -> asyncpg.Connection:
        if connections:
            asked_again.set()
            await let_in.wait()
        connections.append(await connect_over(link, database_url) if not connections else await connect())
        return connections[-1]

    lease = Lease(slow_to_let_in, ALIVE)
    await lease.start()
    pid = await admin.fetchval(HOLDER, LEASE_CLASS, ALIVE)

    link.stall()
    async with asyncio.timeout(20):
        await asked_again.wait()
    let_go = connections[0].is_closed()
    let_in.set()
    link.heal()
    async with asyncio.timeout(20):
        while (again := await admin.fetchval(HOLDER, LEASE_CLASS, ALIVE)) in (None, pid):
            pass  # the server has answered meanwhile

    assert not let_go
    assert again == connections[1].get_server_pid()
    await lease.close()
    await link.close()


async def test_a_lease_that_cannot_reach_postgres_tries_on(connect: Connect, admin: asyncpg.Connection) -> None:
    failures = [
        ConnectionRefusedError(),
        asyncpg.CannotConnectNowError(),
        asyncpg.InterfaceError("closing"),
        asyncpg.InternalClientError("another operation is in progress"),
        TimeoutError(),
    ]

    async def shaky() -> asyncpg.Connection:
        if failures:
            raise failures.pop()
        return await connect()

    lease = Lease(shaky, ALIVE)
    async with asyncio.timeout(20):
        await lease.start()

    assert await lease_is_held(admin, ALIVE)
    await lease.close()


def test_worker_ids_fit_the_second_key_of_an_advisory_lock() -> None:
    assert all(0 <= new_worker_id() < 2**31 for _ in range(1_000))


async def _pid_waiting_for(db: asyncpg.Connection, worker_id: int) -> int:
    waiting = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = $1 AND objid = $2 AND NOT granted"
    async with asyncio.timeout(20):
        while (pid := await db.fetchval(waiting, LEASE_CLASS, worker_id)) is None:
            pass  # the server has answered meanwhile
    return int(pid)


async def _until_free(db: asyncpg.Connection, worker_id: int) -> None:
    async with asyncio.timeout(20):
        while await lease_is_held(db, worker_id):
            pass  # the server has answered meanwhile
