"""Keeps the projections up with the log. Any number of runners may run; each event counts once."""

import asyncio
from datetime import datetime
from typing import Protocol

import asyncpg
import msgspec
import structlog

from ledger import UNREACHABLE, load_queries
from ledger.reading import Connection
from projections import usage

#: How often the log is looked at when it stood still. The answer to a usage query may be this old.
POLL_EVERY_S = 0.2
#: After a failure (Postgres away, say) the next try waits this long.
RETRY_AFTER_S = 1.0

_log = structlog.get_logger(__name__)
_queries = load_queries("projections")


class Lag(msgspec.Struct, frozen=True):
    """How far a projection is behind the log."""

    events: int
    seconds: float  # age of the oldest event that is not in the rows yet


class Follower(Protocol):
    """What takes in the log a batch at a time, each event once, however many follow it at once."""

    async def checkpoint(self, connection: Connection, shard: int) -> int:
        """The position up to which the events of the shard are taken in."""
        ...

    async def advance(self, connection: Connection, shard: int, head: int) -> int:
        """Take in the next batch up to ``head``, in one transaction with the checkpoint; returns the new one."""
        ...


async def catch_up(pool: asyncpg.Pool, follower: Follower) -> int:
    """Have it take in everything that is in the log now; returns by how many positions its checkpoints moved."""
    moved = 0
    async with pool.acquire() as connection:
        for head in await connection.fetch("SELECT shard, position FROM log_heads"):
            before = at = await follower.checkpoint(connection, head["shard"])
            while at < head["position"]:
                at = await follower.advance(connection, head["shard"], head["position"])
            moved += at - before
    return moved


class ProjectionRunner:
    """Follows the log of every shard."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def run(self) -> None:
        """Follow the log until cancelled."""
        while True:
            try:
                moved = await self.catch_up()
            except UNREACHABLE as error:
                _log.warning("projection.interrupted", projection=usage.NAME, error=repr(error))
                await asyncio.sleep(RETRY_AFTER_S)
            else:
                if not moved:
                    await asyncio.sleep(POLL_EVERY_S)

    async def catch_up(self) -> int:
        """Take in everything that is in the log now; returns by how many positions the checkpoints moved."""
        return await catch_up(self._pool, usage)

    async def lag(self, now: datetime) -> Lag:
        """How far behind the log the rows are."""
        record = await self._pool.fetchrow(_queries["lag"], usage.NAME, now)
        assert record is not None  # an aggregate gives one row
        return Lag(record["events"], max(record["seconds"], 0.0) if record["events"] else 0.0)
