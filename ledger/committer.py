"""Group commit: many commands, one transaction.

While one group is at Postgres the next one gathers; there are no timers, and no added wait when idle. One group is
lock → decide in memory → append → commit, three round trips however many commands it carries. A hot account is the
fastest case, because its lock is taken once per group.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime

import asyncpg
import structlog

from ledger.commands import Command, PlaceHold
from ledger.errors import LedgerCorrupt, LedgerError, LedgerOverloaded, LedgerUnavailable
from ledger.events import StoredEvent
from ledger.group import Appended, Committed, Group, Outcome
from ledger.group_rows import append_group, load_group, recall

#: More commands than this in one transaction make every caller wait longer and save nothing.
MAX_GROUP = 512
#: Beyond this many waiting commands a new one is refused at once: it would only be late.
MAX_WAITING = 8192
#: How long a command waits and is tried again while Postgres is away, before its caller hears of it.
RETRY_FOR_S = 5.0
#: A try of a group that takes longer is given up with its connection: it may be one that nothing comes back from.
TRY_TIMEOUT_S = 10.0
FIRST_BACKOFF_S = 0.05
MAX_BACKOFF_S = 1.0

#: What a later try of the same group can cure. Anything else that Postgres says is about one command.
TRANSIENT = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what asyncpg says of a connection that was ended between two statements
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.LockNotAvailableError,
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.PostgresSystemError,  # a disk that fails
)

#: What refuses a hold that was placed before: it is still open, or it has ended.
PLACED_TWICE = ("open_holds_pkey", "events_hold_placed_and_ended_once")

#: What two processes do at once under two locks or none: the first event of a stream, a top-up of one id, the crediting
#: of one payment. The loser reads what the winner wrote, and decides anew.
WRITTEN_MEANWHILE = (
    "events_stream_seq_key",
    "events_topup_requested_and_credited_once",
    "events_payment_credited_once",
)

_log = structlog.get_logger(__name__)

Clock = Callable[[], datetime]
Connect = Callable[[], Awaitable[asyncpg.Connection]]


class _Waiting:
    __slots__ = ("command", "done", "give_up_at")

    def __init__(self, command: Command, done: asyncio.Future[Committed], give_up_at: float) -> None:
        self.command = command
        self.done = done
        self.give_up_at = give_up_at  # of the event loop's clock


class _OpenedMeanwhile(Exception):
    """A stream that had no row to lock when we looked has events by now: its first event was another process's."""


class Committer:
    """The one writer of a process for one log shard. Start it, submit to it, close it.

    A caller hears of its command within ``retry_for_s`` and one try, whatever becomes of Postgres and the way to it.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        shard: int,
        clock: Clock,
        retry_for_s: float = RETRY_FOR_S,
        try_timeout_s: float = TRY_TIMEOUT_S,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._connect = connect
        self._shard = shard
        self._clock = clock
        self._retry_for_s = retry_for_s
        self._try_timeout_s = try_timeout_s
        self._max_waiting = max_waiting
        self._waiting: deque[_Waiting] = deque()
        self._busy_since: float | None = None  # with the group at Postgres
        self._wake = asyncio.Event()
        self._connection: asyncpg.Connection | None = None
        self._is_begun = False  # the connection is in a transaction already
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self.groups = 0
        self.commands = 0

    @property
    def waiting(self) -> int:
        """How many commands wait for the group after the one at Postgres."""
        return len(self._waiting)

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"committer-{self._shard}")

    async def close(self) -> None:
        """Commit what was submitted, then let go of the connection."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
        if self._connection is not None:
            with suppress(*TRANSIENT):
                await self._connection.close(timeout=self._try_timeout_s)

    async def submit(self, command: Command) -> Committed:
        """Carry the command out durably, and return its event.

        Raises a leaf of Refused when the rules do not allow it, LedgerOverloaded when it is not taken, and any other
        LedgerUnavailable when Postgres does not answer in time; then the outcome is not known, and submitting the same
        command again finds it out. A caller that is cancelled while the command waits withdraws it; once its group is
        at Postgres it is carried out.
        """
        now = self._loop.time()
        # Behind a group that is stuck a command would only wait to be refused.
        is_stuck = self._busy_since is not None and now - self._busy_since > self._retry_for_s
        if self._closing or is_stuck or len(self._waiting) >= self._max_waiting:
            raise LedgerOverloaded("too many commands are waiting for the ledger")
        done: asyncio.Future[Committed] = self._loop.create_future()
        self._waiting.append(_Waiting(command, done, now + self._retry_for_s))
        self._wake.set()
        return await done

    async def _run(self) -> None:
        while not (self._closing and not self._waiting):
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                self._turn_away()
                group = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_GROUP))]
                group = [waiting for waiting in group if not waiting.done.cancelled()]
                if group:
                    self._busy_since = self._loop.time()
                    await self._commit_or_fail(group)
                    self._busy_since = None
            if self._is_begun:  # for commands that were withdrawn since
                await self._end_unused()

    def _turn_away(self) -> None:
        """Refuse what has waited too long to be taken yet; it waits in the order of its arrival."""
        now = self._loop.time()
        while self._waiting and self._waiting[0].give_up_at < now:
            _fail([self._waiting.popleft()], LedgerOverloaded("the ledger did not come to the command in time"))

    async def _commit_or_fail(self, group: list[_Waiting]) -> None:
        """The only writer of the process outlives whatever goes wrong with one group."""
        try:
            await self._commit(group)
        except Exception:
            _fail(group, LedgerUnavailable("the committer failed; whether the command was carried out is not known"))
            with suppress(Exception):  # it may be the log that failed
                _log.exception("group.failed", commands=len(group))

    async def _commit(self, group: list[_Waiting]) -> None:
        try:
            outcomes = await self._commit_with_retries(group)
        except Exception as error:  # Postgres or the books rejected the group: find the command it is about
            if len(group) > 1:
                await self._commit_one_by_one(group, error)
            else:
                _log.error("command.rejected", command=type(group[0].command).__name__, error=repr(error))
                _fail(group, error)
        else:
            for waiting, outcome in zip(group, outcomes, strict=True):
                if waiting.done.cancelled():
                    continue
                if isinstance(outcome, Committed):
                    waiting.done.set_result(outcome)
                else:
                    waiting.done.set_exception(outcome)

    async def _commit_one_by_one(self, group: list[_Waiting], error: Exception) -> None:
        _log.warning("group.rejected", commands=len(group), error=repr(error))
        for waiting in group:
            single = [waiting]
            if self._connection is None:  # lost with the one before: each would spend a try's time on finding no other
                self._give_up(single, self._loop.time(), error)
            if single:
                await self._commit(single)

    async def _commit_with_retries(self, group: list[_Waiting]) -> list[Committed | LedgerError]:
        """The outcomes of the group's commands. Those whose time runs out before are taken out of it, and fail."""
        give_up_at = self._loop.time() + self._retry_for_s
        backoff = FIRST_BACKOFF_S
        placed_again: Sequence[str] | None = None
        while True:
            commands = [waiting.command for waiting in group]
            try:
                async with asyncio.timeout(self._try_timeout_s):
                    return await self._transact(commands, placed_again or ())
            except asyncpg.UniqueViolationError as error:
                # A hold was placed before. That is rare, so that looking for it is left until it happens.
                if error.constraint_name in PLACED_TWICE and placed_again is None:
                    placed_again = [command.hold_id for command in commands if isinstance(command, PlaceHold)]
                    continue
                if error.constraint_name not in WRITTEN_MEANWHILE:
                    raise
                if self._loop.time() + backoff > give_up_at:
                    raise LedgerCorrupt("the states are behind the events") from error
            except _OpenedMeanwhile as error:
                if self._loop.time() + backoff > give_up_at:
                    raise LedgerCorrupt("a stream has events and no state") from error
            except TRANSIENT as error:
                # The group may have been committed all the same: every command finds its own event when it is
                # submitted again, so trying the group once more is safe whatever happened to the first try.
                _log.warning("group.interrupted", commands=len(commands), error=repr(error))
                self._drop_connection()
                self._give_up(group, self._loop.time() + backoff, error)
                if not group:
                    return []
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, MAX_BACKOFF_S)

    def _give_up(self, group: list[_Waiting], next_try_at: float, error: Exception) -> None:
        """Take out of the group, and fail, those that would wait too long for its next try."""
        unavailable = LedgerUnavailable("Postgres does not answer")
        unavailable.__cause__ = error
        _fail([waiting for waiting in group if waiting.give_up_at < next_try_at], unavailable)
        group[:] = [waiting for waiting in group if waiting.give_up_at >= next_try_at]

    async def _transact(
        self, commands: Sequence[Command], placed_again: Sequence[str]
    ) -> list[Committed | LedgerError]:
        async with self._transaction() as connection:
            loaded = await load_group(connection, self._shard, commands, placed_again)
            group = Group(loaded, self._clock())
            outcomes = group.decide(commands)
            await self._recall_refused(connection, group, commands, outcomes)
            if any(outcome.refusal is None and outcome.account is None for outcome in outcomes):
                raise _OpenedMeanwhile
            head = await append_group(connection, self._shard, group) if group.rows else 0
        self.groups += 1
        self.commands += len(commands)
        return [_result(outcome, group.rows, head) for outcome in outcomes]

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[asyncpg.Connection]:
        """A transaction, begun by the end of the one before when commands were waiting then.

        That saves more than a round trip: the next group's locks are asked for before the requests that just got
        their answers run, so that Postgres works while they do.
        """
        connection = await self._connected()
        if not self._is_begun:
            await connection.execute("BEGIN")
        self._is_begun = False
        try:
            yield connection
        except TRANSIENT:
            raise  # the connection may be one that nothing comes back from; it is dropped, and the transaction with it
        except Exception:
            await connection.execute("ROLLBACK")
            raise
        is_followed = bool(self._waiting)
        await connection.execute("COMMIT AND CHAIN" if is_followed else "COMMIT")
        self._is_begun = is_followed

    async def _end_unused(self) -> None:
        self._is_begun = False
        try:
            async with asyncio.timeout(self._try_timeout_s):
                await (await self._connected()).execute("ROLLBACK")
        except TRANSIENT as error:
            _log.warning("connection.lost", error=repr(error))
            self._drop_connection()

    async def _recall_refused(
        self, connection: asyncpg.Connection, group: Group, commands: Sequence[Command], outcomes: list[Outcome]
    ) -> None:
        """Turn the refusal of a hold that was placed before into its first outcome.

        Its first try may have been committed with the answer lost on the way: then its own amount is held by now, and
        a refusal would leave it held with nobody to end it.
        """
        refused = [
            (index, command)
            for index, (command, outcome) in enumerate(zip(commands, outcomes, strict=True))
            if isinstance(command, PlaceHold) and outcome.refusal is not None
        ]
        await recall(connection, self._shard, group.loaded, [command.hold_id for _, command in refused])
        for index, command in refused:
            if command.hold_id in group.loaded.places:
                outcomes[index] = group.decide([command])[0]

    async def _connected(self) -> asyncpg.Connection:
        if self._connection is None or self._connection.is_closed():
            try:
                self._connection = await self._connect()
            except asyncpg.PostgresError as error:  # whatever it says of us, it says nothing of a command
                raise ConnectionError(f"Postgres does not let us in: {error}") from error
            self._is_begun = False
        return self._connection

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        self._is_begun = False
        if connection is not None:
            connection.terminate()


def _result(outcome: Outcome, rows: Sequence[Appended], head: int) -> Committed | LedgerError:
    if outcome.refusal is not None:
        return outcome.refusal
    assert outcome.account is not None  # an event has a stream, and a stream has a state
    if outcome.row is None:
        assert outcome.stored is not None  # neither refused nor appended: it was there
        return Committed(outcome.stored, outcome.account, outcome.key, replayed=outcome.replayed)
    row = rows[outcome.row]
    stored = StoredEvent(
        position=head + outcome.row + 1,
        stream_id=row.stream_id,
        seq=row.seq,
        at=row.at,
        event=row.event,
        balance_microcents=row.balance,
    )
    return Committed(stored, outcome.account, outcome.key, replayed=outcome.replayed)


def _fail(group: Sequence[_Waiting], error: BaseException) -> None:
    for waiting in group:
        if not waiting.done.done():
            waiting.done.set_exception(error)
