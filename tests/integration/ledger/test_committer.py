"""The committer while Postgres is away, while callers leave, while it closes, and when too much waits for it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest
import structlog

from ledger import Committed, Ledger, LedgerCorrupt, LedgerOverloaded, LedgerUnavailable, Refused
from ledger.committer import Committer
from tests.conftest import Clock, Connect
from tests.integration.ledger.conftest import waits_for_a_lock
from tests.integration.ledger.stored import broken_rules
from tests.unit.ledger.scenes import A, create_key, grant, open_account, place, settle


class Network:
    """Makes connections while it is up."""

    def __init__(self, connect: Connect) -> None:
        self.is_up = True
        self.attempts = 0
        self.connections: list[asyncpg.Connection] = []
        self._connect = connect
        self._tried = asyncio.Event()

    async def connect(self) -> asyncpg.Connection:
        self.attempts += 1
        self._tried.set()
        if not self.is_up:
            raise ConnectionRefusedError("the network is down")
        self.connections.append(await self._connect())
        return self.connections[-1]

    async def was_tried(self, times: int) -> None:
        """Return once a connection was asked for so many times."""
        while self.attempts < times:
            self._tried.clear()
            await self._tried.wait()

    def fail(self) -> None:
        """Break every connection, and make no more."""
        self.is_up = False
        for connection in self.connections:
            connection.terminate()


@pytest.fixture
def network(connect: Connect) -> Network:
    return Network(connect)


OpenFar = Callable[..., Awaitable[Ledger]]


@pytest.fixture
async def open_far(pool: asyncpg.Pool, network: Network, clock: Clock) -> AsyncIterator[OpenFar]:
    """Opens a ledger whose committer reaches Postgres over the network, with these limits."""
    ledgers: list[Ledger] = []

    async def opened(**limits: Any) -> Ledger:
        ledgers.append(await Ledger.open(pool, network.connect, clock, **limits))
        return ledgers[-1]

    yield opened
    async with asyncio.timeout(30):
        for ledger in ledgers:
            await ledger.close()


@pytest.fixture
async def far_ledger(open_far: OpenFar) -> Ledger:
    return await open_far()


async def test_without_postgres_every_waiting_command_hears_that_the_ledger_is_unavailable(
    open_far: OpenFar, network: Network, admin: asyncpg.Connection
) -> None:
    far_ledger = await open_far(retry_for_s=0.2)
    network.fail()

    commands = [open_account(f"acct_{n}") for n in range(5)]
    results = await asyncio.gather(*[far_ledger.submit(command) for command in commands], return_exceptions=True)

    assert [type(result).__name__ for result in results] == ["LedgerUnavailable"] * 5
    assert network.attempts > 1
    assert await admin.fetchval("SELECT count(*) FROM events") == 0


async def test_the_ledger_recovers_by_itself_when_postgres_is_back(open_far: OpenFar, network: Network) -> None:
    far_ledger = await open_far(retry_for_s=0.5)
    await far_ledger.submit(open_account())
    network.fail()
    with pytest.raises(LedgerUnavailable):
        await far_ledger.submit(grant(1))

    network.is_up = True
    committed = await far_ledger.submit(grant(1))

    assert (committed.stored.seq, committed.replayed) == (2, False)


async def test_a_short_absence_of_postgres_is_not_noticed_by_callers(far_ledger: Ledger, network: Network) -> None:
    await far_ledger.submit(open_account())
    network.fail()
    waiting = asyncio.create_task(far_ledger.submit(grant(1)))
    await network.was_tried(3)

    network.is_up = True

    assert (await waiting).stored.seq == 2


async def test_beyond_the_waiting_limit_a_command_is_refused_at_once(open_far: OpenFar, network: Network) -> None:
    far_ledger = await open_far(max_waiting=3)
    network.fail()
    at_postgres = asyncio.create_task(far_ledger.submit(open_account("acct_0")))
    await network.was_tried(1)
    waiting = [asyncio.create_task(far_ledger.submit(open_account(f"acct_{n}"))) for n in range(1, 4)]
    await asyncio.sleep(0)

    with pytest.raises(LedgerOverloaded):
        await far_ledger.submit(open_account("acct_4"))

    network.is_up = True
    results = await asyncio.gather(at_postgres, *waiting)
    assert [committed.stored.seq for committed in results] == [1, 1, 1, 1]


async def test_a_caller_that_leaves_while_its_command_waits_withdraws_it(
    far_ledger: Ledger, network: Network, admin: asyncpg.Connection
) -> None:
    network.fail()
    at_postgres = asyncio.create_task(far_ledger.submit(open_account("acct_first")))
    await network.was_tried(1)
    leaving = asyncio.create_task(far_ledger.submit(open_account("acct_leaving")))
    staying = asyncio.create_task(far_ledger.submit(open_account("acct_staying")))
    await asyncio.sleep(0)

    leaving.cancel()
    network.is_up = True
    await asyncio.gather(at_postgres, staying)

    assert leaving.cancelled()
    streams = await admin.fetch("SELECT stream_id FROM events ORDER BY position")
    assert [row["stream_id"] for row in streams] == ["acct_first", "acct_staying"]


async def test_a_caller_that_leaves_while_its_group_is_at_postgres_disturbs_nobody(
    ledger: Ledger, connect: Connect, admin: asyncpg.Connection
) -> None:
    for command in (open_account(), grant(100)):
        await ledger.submit(command)
    blocker = await connect()
    async with blocker.transaction():
        await blocker.execute("SELECT FROM account_states WHERE account_id = $1 FOR UPDATE", A)
        leaving = asyncio.create_task(ledger.submit(place("hold_1", 60)))
        staying = asyncio.create_task(ledger.submit(place("hold_2", 30)))
        await waits_for_a_lock(admin, await _pid_of_the_waiting(admin))
        leaving.cancel()
    await blocker.close()

    async with asyncio.timeout(20):
        assert (await staying).account.held == 90
        replayed = await ledger.submit(place("hold_1", 60))
    assert replayed.replayed
    assert await broken_rules(admin) == []


async def test_commands_that_were_all_withdrawn_leave_no_transaction_open(
    ledger: Ledger, connect: Connect, admin: asyncpg.Connection
) -> None:
    for command in (open_account(), grant(100)):
        await ledger.submit(command)
    blocker = await connect()
    async with blocker.transaction():
        await blocker.execute("SELECT FROM account_states WHERE account_id = $1 FOR UPDATE", A)
        at_postgres = asyncio.create_task(ledger.submit(place("hold_1", 60)))
        committing = await _pid_of_the_waiting(admin)
        leaving = asyncio.create_task(ledger.submit(place("hold_2", 30)))
        await asyncio.sleep(0)
        leaving.cancel()
    await blocker.close()
    await at_postgres

    async with asyncio.timeout(20):
        while await _state_of(admin, committing) != "idle":
            pass  # the server has answered meanwhile, so that the committer had a turn
    assert (await ledger.submit(place("hold_2", 30))).account.held == 90


class _FullDisk:
    """A log that cannot be written."""

    def msg(self, message: str) -> None:
        raise OSError(28, "No space left on device")

    warning = error = info = msg


async def test_a_log_that_cannot_be_written_ends_no_committer(ledger: Ledger) -> None:
    structlog.configure(logger_factory=lambda *_: _FullDisk())
    poison = place("nul\0", 1)
    async with asyncio.timeout(20):
        first = await asyncio.gather(ledger.submit(open_account()), ledger.submit(poison), return_exceptions=True)
        again = await ledger.submit(open_account())

    assert isinstance(first[1], Exception)
    assert again.stored.seq == 1


async def test_closing_carries_out_what_was_submitted_and_takes_nothing_more(
    pool: asyncpg.Pool, connect: Connect, clock: Clock, admin: asyncpg.Connection
) -> None:
    ledger = await Ledger.open(pool, connect, clock)
    submitted = [asyncio.create_task(ledger.submit(open_account(f"acct_{n}"))) for n in range(20)]
    await asyncio.sleep(0)

    await ledger.close()

    assert all(task.done() for task in submitted)
    assert await admin.fetchval("SELECT count(*) FROM events") == 20
    async with asyncio.timeout(20):
        with pytest.raises(LedgerUnavailable):
            await ledger.submit(open_account("acct_late"))


async def test_a_stream_whose_state_was_lost_fails_alone_and_in_bounded_time(
    open_far: OpenFar, admin: asyncpg.Connection
) -> None:
    ledger = await open_far(retry_for_s=0.5)
    await ledger.submit(open_account())
    await ledger.submit(grant(5))
    for loss, command in (
        ("UPDATE account_states SET seq = 1 WHERE account_id = $1", grant(1, "again")),
        ("DELETE FROM account_states WHERE account_id = $1", open_account()),
    ):
        await admin.execute(loss, A)

        async with asyncio.timeout(20):
            broken, sound = await asyncio.gather(
                ledger.submit(command), ledger.submit(open_account("acct_b")), return_exceptions=True
            )

        assert isinstance(broken, LedgerCorrupt)
        assert isinstance(sound, Committed)


async def test_what_a_commit_returns_is_what_is_stored(ledger: Ledger, clock: Clock) -> None:
    results = []
    for command in (open_account(), grant(100), create_key(budget=90), place("hold_1", 60, key_id="key_1")):
        results.append(await ledger.submit(command))
        clock.advance(seconds=1)
    results.append(await ledger.submit(settle("hold_1", 25)))

    assert await ledger.stream(A) == [committed.stored for committed in results]
    assert await ledger.account(A) == results[-1].account
    assert await ledger.keys(A) == [results[-1].key]
    assert await ledger.open_holds(A) == []
    assert (results[-1].account.available, results[-1].account.held, results[-1].account.spent) == (75, 0, 25)


async def test_an_open_hold_reads_as_what_was_asked_for(ledger: Ledger) -> None:
    command = place("hold_1", 60, key_id="key_1", request_id="req_1", worker_id=2**31 - 1)
    for preparation in (open_account(), grant(100), create_key()):
        await ledger.submit(preparation)

    await ledger.submit(command)

    (hold,) = await ledger.open_holds(A)
    assert (60, "key_1", "req_1", 2**31 - 1, command.price) == (
        hold.held,
        hold.key_id,
        hold.request_id,
        hold.worker_id,
        hold.price,
    )


async def test_of_a_refused_command_nothing_is_written(ledger: Ledger, admin: asyncpg.Connection) -> None:
    for command in (open_account(), grant(100), create_key(rpm=1, budget=50), place("hold_1", 50, key_id="key_1")):
        await ledger.submit(command)
    before = await _everything(admin)

    for command in (
        place("hold_2", 1, key_id="key_1"),
        place("hold_2", 51),
        place("hold_1", 51),
        settle("hold_2", 1),
        grant(101),
        grant(0, "x"),
        create_key(rpm=2),
    ):
        with pytest.raises(Refused):
            await ledger.submit(command)

    assert before == await _everything(admin)


async def test_a_committer_counts_its_groups_and_commands(connect: Connect, clock: Clock, database_url: str) -> None:
    one = Committer(connect, shard=0, clock=clock)
    submitted = [asyncio.create_task(one.submit(open_account(f"acct_{n}"))) for n in range(30)]
    await asyncio.sleep(0)
    one.start()

    await asyncio.gather(*submitted)
    await one.close()

    assert (one.groups, one.commands) == (1, 30)


async def _everything(db: asyncpg.Connection) -> list[list[asyncpg.Record]]:
    tables = ("events", "log_heads", "account_states", "key_states", "open_holds")
    return [await db.fetch(f"SELECT * FROM {table} ORDER BY 1, 2") for table in tables]


async def _state_of(db: asyncpg.Connection, pid: int) -> str | None:
    state: str | None = await db.fetchval("SELECT state FROM pg_stat_activity WHERE pid = $1", pid)
    return state


async def _pid_of_the_waiting(db: asyncpg.Connection) -> int:
    async with asyncio.timeout(20):
        while True:
            pid = await db.fetchval(
                "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            if pid is not None:
                return int(pid)
