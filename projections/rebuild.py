"""Everything derived, made again from the events.

Fresh tables are made beside the live ones by applying the migrations in a scratch schema, filled from the log, and
swapped in. So a rebuild also brings back a table that was dropped, and the live rows serve until the swap. Writers
wait only for the last stretch: the events that came while the tables were filled, and the copy of the states.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import asyncpg
import msgspec
import structlog

from ledger import LedgerCorrupt, load_queries
from ledger.evolve import evolve
from ledger.reading import events_after, head_position, stored_event
from ledger.state import AccountState, Books, HoldState, KeyState, TopupState
from projections import usage

SCRATCH = "tollgate_rebuild"
#: Advisory lock at which a second rebuild waits for the first: there is one scratch schema ("rebuild" in ASCII).
REBUILD_LOCK = 0x72656275696C64
STATE_TABLES = ("account_states", "key_states", "open_holds", "topup_states")
#: Every table that can be dropped and comes back by a rebuild.
DERIVED_TABLES = (*STATE_TABLES, *usage.TABLES, "projection_checkpoints")

Progress = Callable[[int, int], None]

_log = structlog.get_logger(__name__)
_queries = load_queries("projections")


class Rebuilt(msgspec.Struct, frozen=True):
    """What a rebuild read and wrote."""

    events: int
    accounts: int


class Fold:
    """The states of one shard, folded event by event."""

    def __init__(self) -> None:
        self.books = Books()
        self.position = 0

    def add(self, records: Iterable[asyncpg.Record]) -> None:
        for record in records:
            stored = stored_event(record)
            if stored.position != self.position + 1:
                raise LedgerCorrupt(f"position {self.position + 1} is missing from the log")
            before = self.books.scope_of(stored.stream_id, stored.event)
            self.books.put(before, evolve(before, stored.event, stream_id=stored.stream_id, at=stored.at))
            self.position = stored.position


async def rebuild(connection: asyncpg.Connection, migrations: Sequence[str], progress: Progress) -> Rebuilt:
    """Make all derived tables again, as the owner of the schema. ``migrations`` are the texts of all files, in order.

    ``progress`` is told (events done, events in all), an event being counted once for the states and once for the
    usage. Raises LedgerCorrupt, and changes nothing, when the events do not follow from each other.
    """
    live = await connection.fetchval("SELECT current_schema()")
    await connection.execute("SELECT pg_advisory_lock($1)", REBUILD_LOCK)
    try:
        await _require_true_heads(connection)
        await _make_scratch(connection, migrations, live)
        heads = {
            row["shard"]: row["position"] for row in await connection.fetch("SELECT shard, position FROM log_heads")
        }
        total = 2 * sum(heads.values())
        folds = {shard: Fold() for shard in heads}
        done = 0
        for shard, head in heads.items():
            async for batch in events_after(connection, shard, after=0, upto=head):
                folds[shard].add(batch)
                done += len(batch)
                progress(done, total)
            at = 0
            while at < head:
                reached = await usage.advance(connection, shard, head)
                done, at = done + reached - at, reached
                progress(done, total)
        async with connection.transaction():
            await _stop_writers(connection, live)
            for shard, fold in folds.items():
                await _catch_up(connection, shard, fold)
                await _copy_states(connection, shard, fold.books)
            await _swap(connection, live)
    finally:
        await connection.execute(f"SET search_path = {live}")
        await connection.execute(f"DROP SCHEMA IF EXISTS {SCRATCH} CASCADE")
        await connection.execute("SELECT pg_advisory_unlock($1)", REBUILD_LOCK)
    accounts = sum(len(fold.books.accounts) for fold in folds.values())
    return Rebuilt(events=sum(fold.position for fold in folds.values()), accounts=accounts)


async def _require_true_heads(connection: asyncpg.Connection) -> None:
    # States that leave the last events out would be believed by the next decision.
    for row in await connection.fetch(_queries["untrue_heads"]):
        raise LedgerCorrupt(f"shard {row['shard']}: the log's head says {row['head']}, its last event is {row['last']}")


async def _make_scratch(connection: asyncpg.Connection, migrations: Sequence[str], live: str) -> None:
    async with connection.transaction():
        await connection.execute(f"DROP SCHEMA IF EXISTS {SCRATCH} CASCADE")
        await connection.execute(f"CREATE SCHEMA {SCRATCH}")
        await connection.execute(f"GRANT USAGE ON SCHEMA {SCRATCH} TO tollgate_app")
        await connection.execute(f"SET LOCAL search_path = {SCRATCH}")
        for migration in migrations:
            await connection.execute(migration)
        for row in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", SCRATCH):
            if row["tablename"] not in DERIVED_TABLES:
                await connection.execute(f'DROP TABLE {SCRATCH}."{row["tablename"]}" CASCADE')
    # From here on the derived tables are the fresh ones, and everything else is the live one.
    await connection.execute(f"SET search_path = {SCRATCH}, {live}")


async def _stop_writers(connection: asyncpg.Connection, live: str) -> None:
    # Appends begin by locking account rows, runners by locking their checkpoint: in this order nobody deadlocks.
    for table in (*STATE_TABLES, "projection_checkpoints"):
        if await connection.fetchval("SELECT to_regclass($1)", f"{live}.{table}") is not None:
            await connection.execute(f"LOCK TABLE {live}.{table} IN ACCESS EXCLUSIVE MODE")


async def _catch_up(connection: asyncpg.Connection, shard: int, fold: Fold) -> None:
    head = await head_position(connection, shard)
    async for batch in events_after(connection, shard, after=fold.position, upto=head):
        fold.add(batch)
    while await usage.advance(connection, shard, head) < head:
        pass


async def _copy_states(connection: asyncpg.Connection, shard: int, books: Books) -> None:
    states: list[tuple[str, type[msgspec.Struct], Iterable[Any]]] = [
        ("account_states", AccountState, books.accounts.values()),
        ("key_states", KeyState, books.keys.values()),
        ("open_holds", HoldState, books.holds.values()),
        ("topup_states", TopupState, books.topups.values()),
    ]
    for table, kind, rows in states:
        names = kind.__struct_fields__
        await connection.copy_records_to_table(
            table,
            schema_name=SCRATCH,
            columns=["shard", *names],
            records=[(shard, *(_column(getattr(row, name)) for name in names)) for row in rows],
        )


def _column(value: Any) -> Any:
    """A field of a state as its column takes it: what has fields or members of its own is JSON."""
    return msgspec.json.encode(value).decode() if isinstance(value, msgspec.Struct | tuple) else value


async def _swap(connection: asyncpg.Connection, live: str) -> None:
    for table in DERIVED_TABLES:
        await connection.execute(f"DROP TABLE IF EXISTS {live}.{table}")
        await connection.execute(f"ALTER TABLE {SCRATCH}.{table} SET SCHEMA {live}")
