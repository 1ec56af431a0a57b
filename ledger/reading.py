"""Reading the books: states, single streams, and the log in order.

A position is assigned under the log head's lock, which lasts until the commit: whoever sees a position sees
everything below it, so that "position > last" misses nothing, whatever else is being written.
"""

import zlib
from collections.abc import AsyncIterator
from datetime import datetime
from typing import TypeAlias

import asyncpg
import msgspec

from ledger.events import AutomaticTopup, StoredEvent, decode_event
from ledger.grants import Grant
from ledger.money import ZERO, Microcents
from ledger.sql import load_queries
from ledger.state import AccountState, HoldState, KeyState, TopupState

#: Events fetched at once: a few megabytes, and enough that the round trip does not count.
BATCH = 5_000

_queries = load_queries("ledger")
_decode_grants = msgspec.json.Decoder(tuple[Grant, ...]).decode
_decode_automatic_topup = msgspec.json.Decoder(AutomaticTopup).decode

Connection: TypeAlias = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy
Queryable: TypeAlias = Connection | asyncpg.Pool


class Balance(msgspec.Struct, frozen=True, kw_only=True):
    """An account's balance at a moment, in microcents."""

    posted: Microcents
    held: Microcents

    @property
    def available(self) -> Microcents:
        return Microcents(self.posted - self.held)


def shard_of(stream_id: str, shards: int) -> int:
    """The log shard of a stream: a stable hash, so that it never moves."""
    return zlib.crc32(stream_id.encode()) % shards


def stored_event(record: asyncpg.Record) -> StoredEvent:
    """A row of the log as an event."""
    return StoredEvent(
        position=record["position"],
        stream_id=record["stream_id"],
        seq=record["seq"],
        at=record["at"],
        event=decode_event(record["payload"]),
        balance_microcents=record["balance_microcents"],
    )


def stored_account(record: asyncpg.Record) -> AccountState:
    """A row of ``account_states``, without its shard, as a state."""
    fields = dict(record)
    fields["grants"] = () if fields["grants"] is None else _decode_grants(fields["grants"])
    if fields["automatic_topup"] is not None:
        fields["automatic_topup"] = _decode_automatic_topup(fields["automatic_topup"])
    return AccountState(**fields)


async def count_shards(db: Queryable) -> int:
    """The number of log shards, fixed when the ledger was created."""
    return len(await db.fetch(_queries["shards"]))


async def head_position(db: Queryable, shard: int) -> int:
    """The position of the last event of a shard; 0 when it has none."""
    return int(await db.fetchval(_queries["head"], shard))


async def events_after(
    db: Queryable, shard: int, *, after: int, upto: int, at_once: int = BATCH
) -> AsyncIterator[list[asyncpg.Record]]:
    """The rows of the log with after < position ≤ upto, in order, in batches."""
    while after < upto:
        batch = await db.fetch(_queries["events_after"], shard, after, upto, at_once)
        if not batch:
            return
        yield batch
        after = batch[-1]["position"]


async def stream_events(db: Queryable, shard: int, stream_id: str, *, after_seq: int = 0) -> list[StoredEvent]:
    """The events of one stream, in order."""
    return [stored_event(record) for record in await db.fetch(_queries["stream_events"], shard, stream_id, after_seq)]


async def events_of_hold(db: Queryable, shard: int, account_id: str, hold_id: str) -> list[StoredEvent]:
    """From its placing to the last correction of its charges; empty when the account has no such hold."""
    return [stored_event(record) for record in await db.fetch(_queries["events_of_hold"], shard, account_id, hold_id)]


async def account_state(db: Queryable, shard: int, account_id: str) -> AccountState | None:
    """The account's state, or None when it was never opened."""
    record = await db.fetchrow(_queries["account_state"], shard, account_id)
    return None if record is None else stored_account(record)


async def accounts_to_top_up(db: Queryable, shard: int) -> list[AccountState]:
    """The accounts whose available balance is below the threshold of their automatic top-ups."""
    return [stored_account(record) for record in await db.fetch(_queries["accounts_to_top_up"], shard)]


async def accounts_with_expired_grants(db: Queryable, now: datetime, *, after: str, limit: int) -> list[AccountState]:
    """Accounts of which something of a grant may be to be taken off the books, in order of their ids."""
    records = await db.fetch(_queries["accounts_with_expired_grants"], now, after, limit)
    return [stored_account(record) for record in records]


async def keys_of_account(db: Queryable, shard: int, account_id: str) -> list[KeyState]:
    """The account's keys, deleted ones too, oldest first."""
    return [KeyState(**record) for record in await db.fetch(_queries["keys_of_account"], shard, account_id)]


async def open_holds_of_account(db: Queryable, shard: int, account_id: str) -> list[HoldState]:
    """The account's open holds, oldest first."""
    return [HoldState(**record) for record in await db.fetch(_queries["open_holds_of_account"], shard, account_id)]


async def topup_state(db: Queryable, shard: int, account_id: str, topup_id: str) -> TopupState | None:
    """The account's top-up, or None when it has none of this id."""
    record = await db.fetchrow(_queries["topup"], shard, account_id, topup_id)
    return None if record is None else TopupState(**record)


async def topups_of_account(
    db: Queryable, shard: int, account_id: str, *, before: str | None, limit: int
) -> list[TopupState]:
    """The account's top-ups, newest first; those requested before the one of the id ``before``, where it is given."""
    records = await db.fetch(_queries["topups_of_account"], shard, account_id, before, limit)
    return [TopupState(**record) for record in records]


async def balance_as_of(db: Queryable, shard: int, account_id: str, at: datetime) -> Balance:
    """The balance after the account's last money event up to and including the moment ``at``."""
    record = await db.fetchrow(_queries["balance_as_of"], shard, account_id, at)
    if record is None:
        return Balance(posted=ZERO, held=ZERO)
    return Balance(posted=record["balance_microcents"], held=record["held_microcents"])
