"""The usage projection: lines and daily sums from the ends and draws of holds, and from their corrections.

Its rule is SQL (``usage_lines`` in migrations), because it moves rows from one table to another; here is only how
far it has come.
"""

from ledger import load_queries
from ledger.reading import Connection

NAME = "usage"
TABLES = ("usage_logs", "usage_daily")

#: Events taken in one transaction: long enough to be cheap, short enough that a reader sees it move.
BATCH = 20_000

_queries = load_queries("projections")


async def checkpoint(connection: Connection, shard: int) -> int:
    """The position up to which the events of the shard are in the rows."""
    return int(await connection.fetchval(_queries["checkpoint"], NAME, shard) or 0)


async def advance(connection: Connection, shard: int, head: int) -> int:
    """Take the next batch of events up to ``head`` into the rows; returns the new checkpoint.

    Runs in a transaction of its own, or in the caller's. Two runners at once do each event once.
    """
    async with connection.transaction():
        await connection.execute(_queries["ensure_checkpoint"], NAME, shard)
        after: int = await connection.fetchval(_queries["lock_checkpoint"], NAME, shard)
        upto = min(head, after + BATCH)
        if upto > after:
            await connection.execute(_queries["add_usage_logs"], shard, after, upto)
            await connection.execute(_queries["correct_usage_logs"], shard, after, upto)
            await connection.execute(_queries["add_usage_daily"], shard, after, upto)
            await connection.execute(_queries["move_checkpoint"], NAME, shard, upto)
        return max(upto, after)
