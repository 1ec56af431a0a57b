"""The sweep: ends the holds that nobody is left to end.

Two kinds: holds of a worker whose lease is free, and holds past their time. A lease that is free for one sweep only
may be a worker that is reconnecting, so a worker counts as dead when two sweeps in a row find its lease free.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from itertools import islice

import asyncpg
import structlog

from ledger.commands import ExpireHold
from ledger.errors import Refused
from ledger.group import Committed
from ledger.leases import LEASE_CLASS
from ledger.sql import load_queries

_log = structlog.get_logger(__name__)
_queries = load_queries("ledger")

#: Ends at the ledger at once: enough that one group carries many.
AT_ONCE = 256

#: Whether nobody has a lease. Shared, so that sweepers at the same time do not take each other for the worker.
_IS_FREE = "SELECT pg_try_advisory_xact_lock_shared($1::int, $2::int)"

Submit = Callable[[ExpireHold], Awaitable[Committed]]


class Sweeper:
    """Remembers between sweeps which workers looked dead."""

    def __init__(self, pool: asyncpg.Pool, submit: Submit) -> None:
        self._pool = pool
        self._submit = submit
        self._suspects: set[int] = set()

    async def sweep(self, now: datetime) -> int:
        """End the holds of dead workers and those past their time. Returns how many were ended."""
        async with self._pool.acquire() as connection:
            free = await self._free_leases(connection)
            dead, self._suspects = free & self._suspects, free
            ended = 0
            for worker_id in dead:
                holds = await connection.fetch(_queries["holds_of_worker"], worker_id)
                ended += await self._expire(holds, "worker_gone", None)
            ended += await self._expire(await connection.fetch(_queries["overdue_holds"], now), "time_limit", now)
        return ended

    async def _free_leases(self, connection: asyncpg.pool.PoolConnectionProxy) -> set[int]:
        free = set()
        for record in await connection.fetch(_queries["hold_workers"]):
            worker_id = record["worker_id"]
            # For the statement only: a sweep whose connection is cut off would keep a dead worker's lease.
            if await connection.fetchval(_IS_FREE, LEASE_CLASS, worker_id):
                free.add(worker_id)
        return free

    async def _expire(self, holds: Iterable[asyncpg.Record], reason: str, overdue_at: datetime | None) -> int:
        ended = 0
        rest = iter(holds)
        while some := list(islice(rest, AT_ONCE)):
            commands = [
                ExpireHold(stream_id=hold["account_id"], hold_id=hold["hold_id"], reason=reason, overdue_at=overdue_at)
                for hold in some
            ]
            ended += sum(await asyncio.gather(*map(self._is_expired, commands)))
        return ended

    async def _is_expired(self, command: ExpireHold) -> bool:
        try:
            await self._submit(command)
        except Refused as refusal:  # its worker ended or extended it while we looked
            _log.info("hold.not_swept", hold_id=command.hold_id, reason=str(refusal))
            return False
        _log.warning("hold.expired", hold_id=command.hold_id, reason=command.reason)
        return True
