"""Who is alive. A worker holds a session-level advisory lock on its id for as long as it lives.

Postgres frees the lock when the worker's connection ends, however it ended: a lease needs no clock and no table.
Holds name their worker, so that those of a dead one are found and no living one's are touched.
"""

import asyncio
import secrets
from contextlib import suppress

import asyncpg
import structlog

from ledger.committer import FIRST_BACKOFF_S, MAX_BACKOFF_S, Connect

#: First key of the two-part advisory locks that are leases ("toll" in ASCII).
LEASE_CLASS = 0x746F6C6C

#: A lease that its server no longer has must be taken again before the second sweep finds it free: nothing tells the
#: worker when the server was replaced and the way to the old one swallows everything.
LOOK_EVERY_S = 0.5
ANSWER_WITHIN_S = 1.0
#: How long it is tried on one connection to take the lease.
TAKE_WITHIN_S = 10.0

#: What asyncpg raises when it has no connection, or no longer has one.
UNREACHABLE = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)

_log = structlog.get_logger(__name__)


def new_worker_id() -> int:
    """A worker id nobody has: 31 random bits, the second key of its advisory lock."""
    return secrets.randbelow(2**31)


class Lease:
    """Holds the lease of one worker until closed, through reconnects."""

    def __init__(self, connect: Connect, worker_id: int) -> None:
        self.worker_id = worker_id
        self._connect = connect
        self._task: asyncio.Task[None] | None = None
        self._held = asyncio.Event()

    async def start(self) -> None:
        """Take the lease; returns when it is held."""
        self._task = asyncio.create_task(self._keep(), name=f"lease-{self.worker_id}")
        await self._held.wait()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep(self) -> None:
        connection: asyncpg.Connection | None = None
        try:
            while True:
                fresh = await self._connected()
                # Not before: a Postgres that is slow to let us in would find the lease free meanwhile.
                if connection is not None:
                    connection.terminate()
                connection = fresh
                await self._hold(connection)
                await asyncio.sleep(FIRST_BACKOFF_S)
        finally:
            if connection is not None:
                connection.terminate()

    async def _connected(self) -> asyncpg.Connection:
        backoff = FIRST_BACKOFF_S
        while True:
            try:
                async with asyncio.timeout(TAKE_WITHIN_S):
                    return await self._connect()
            except UNREACHABLE as error:
                _log.warning("lease.unreachable", worker_id=self.worker_id, error=repr(error))
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, MAX_BACKOFF_S)

    async def _hold(self, connection: asyncpg.Connection) -> None:
        """Take the lease on this connection, and return when the connection is lost or says nothing."""
        lost = asyncio.Event()
        connection.add_termination_listener(lambda _: lost.set())
        try:
            # Waits while the server has not yet noticed that our previous connection is gone.
            take = "SELECT pg_advisory_lock($1::int, $2::int)"
            await connection.execute(take, LEASE_CLASS, self.worker_id, timeout=TAKE_WITHIN_S)
        except UNREACHABLE as error:
            _log.warning("lease.not_taken", worker_id=self.worker_id, error=repr(error))
            return
        self._held.set()
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_EVERY_S):
                        await lost.wait()
                await connection.execute("SELECT", timeout=ANSWER_WITHIN_S)
        except UNREACHABLE as error:
            _log.warning("lease.lost", worker_id=self.worker_id, error=repr(error))
