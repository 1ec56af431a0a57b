"""A group on its way from Postgres and back: the rows that it is decided over, and the rows that it becomes."""

from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar

import asyncpg
import msgspec

from ledger.commands import Command, CreateKey, CreditTopup, DeleteKey, HoldCommand, PlaceHold, RerateCharge, SettleHold
from ledger.events import HoldPlaced, HoldSettledLate
from ledger.group import Appended, EndEvent, Group, Loaded, Past
from ledger.idempotency import idempotency_key_of, key_of_what_is_rerated
from ledger.providers import PayoutCommand, keys_of_payout
from ledger.reading import stored_event
from ledger.sql import load_queries
from ledger.state import AccountState, Books, HoldState, KeyState, TopupState

_queries = load_queries("ledger")
_encode = msgspec.json.Encoder().encode
_decode_accounts = msgspec.json.Decoder(list[AccountState]).decode
_decode_keys = msgspec.json.Decoder(list[KeyState]).decode
_decode_holds = msgspec.json.Decoder(list[HoldState]).decode
_decode_topups = msgspec.json.Decoder(list[TopupState]).decode
_decode_pasts = msgspec.json.Decoder(list[Past], float_hook=Decimal).decode

State = TypeVar("State", AccountState, KeyState, HoldState, TopupState, Past)


async def load_group(
    connection: asyncpg.Connection, shard: int, commands: Sequence[Command], placed_again: Sequence[str]
) -> Loaded:
    """Lock what the commands touch, and read it. ``placed_again`` are holds that may have been placed before."""
    keyed = PlaceHold | SettleHold | CreateKey | DeleteKey | RerateCharge
    keys = {c.key_id for c in commands if isinstance(c, keyed) and c.key_id}
    holds = {c.hold_id for c in commands if isinstance(c, HoldCommand) and not isinstance(c, PlaceHold)}
    topups = {topup_id for c in commands if (topup_id := getattr(c, "topup_id", None)) is not None}
    asked = [(c.stream_id, key) for c in commands if (key := idempotency_key_of(c)) is not None]
    reratings = [c for c in commands if isinstance(c, RerateCharge)]
    asked += [(c.stream_id, key) for c in reratings if (key := key_of_what_is_rerated(c)) is not None]
    payouts = {(c.stream_id, c.payout_id) for c in commands if isinstance(c, PayoutCommand)}
    asked += [(stream, key) for stream, payout_id in payouts for key in keys_of_payout(payout_id)]
    record = await connection.fetchrow(
        _queries["lock_group"],
        shard,
        list({command.stream_id for command in commands}),
        list(keys),
        list(holds),
        [stream for stream, _ in asked],
        [key for _, key in asked],
        list(topups),
    )
    assert record is not None  # the function returns one row
    books = Books()
    books.accounts = {a.account_id: a for a in _rows(_decode_accounts, record["accounts"])}
    books.keys = {k.key_id: k for k in _rows(_decode_keys, record["keys"])}
    books.holds = {h.hold_id: h for h in _rows(_decode_holds, record["holds"])}
    books.topups = {t.topup_id: t for t in _rows(_decode_topups, record["topups"])}
    pasts = {(p.stream_id, p.idempotency_key): p for p in _rows(_decode_pasts, record["replays"])}
    loaded = Loaded(books, pasts, {})
    missing = [hold_id for hold_id in holds if hold_id not in books.holds]
    await recall(connection, shard, loaded, [*missing, *placed_again])
    if topups:
        await _recall_topups(connection, shard, loaded, commands)
    return loaded


async def recall(connection: asyncpg.Connection, shard: int, loaded: Loaded, hold_ids: Sequence[str]) -> None:
    """Add how these holds were placed, ended and settled late, where they were."""
    if not hold_ids:
        return
    for record in await connection.fetch(_queries["hold_history"], shard, hold_ids):
        stored = stored_event(record)
        if isinstance(stored.event, EndEvent):
            loaded.ends[stored.event.hold_id] = stored
        elif isinstance(stored.event, HoldSettledLate):
            loaded.late[stored.event.hold_id] = stored
        elif isinstance(stored.event, HoldPlaced):
            loaded.places[stored.event.hold_id] = stored


async def _recall_topups(
    connection: asyncpg.Connection, shard: int, loaded: Loaded, commands: Sequence[Command]
) -> None:
    """Add what the top-ups went through, and which top-ups the payments were credited to."""
    if loaded.books.topups:
        for record in await connection.fetch(_queries["events_of_topups"], shard, list(loaded.books.topups)):
            loaded.topups.setdefault(record["topup_id"], []).append(stored_event(record))
    paid = [(c.provider, c.payment_id) for c in commands if isinstance(c, CreditTopup)]
    if paid:
        providers, payments = zip(*paid, strict=True)
        for record in await connection.fetch(_queries["credited_payments"], shard, providers, payments):
            loaded.payments[record["provider"], record["payment_id"]] = record["topup_id"]


async def append_group(connection: asyncpg.Connection, shard: int, group: Group) -> int:
    """Write what the group decided; returns the log's position before it."""
    books = group.books
    head: int = await connection.fetchval(
        _queries["append_group"],
        shard,
        # In order, so that two groups that each open the same accounts do not deadlock.
        _json([books.accounts[i] for i in sorted(group.changed_accounts)]),
        _json([books.keys[i] for i in group.changed_keys]),
        _json([books.holds[i] for i in group.placed_holds]),
        _json([books.holds[i] for i in group.changed_holds]),
        list(group.ended_holds),
        _json([_event_row(nth, row) for nth, row in enumerate(group.rows, start=1)]),
        _json([books.topups[i] for i in group.changed_topups]),
    )
    return head


class _EventRow(msgspec.Struct):
    """A row of the log as ``append_group`` takes it."""

    nth: int
    stream_id: str
    seq: int
    type: str
    at: datetime
    hold_id: str | None
    balance_microcents: int | None
    held_microcents: int | None
    idempotency_key: str | None
    request_hash: str | None
    payload: msgspec.Raw


def _event_row(nth: int, row: Appended) -> _EventRow:
    hashed = row.request_hash
    return _EventRow(
        nth,
        row.stream_id,
        row.seq,
        row.event.__struct_config__.tag,  # type: ignore[arg-type]
        row.at,
        row.hold_id,
        row.balance,
        row.held,
        row.idempotency_key,
        None if hashed is None else "\\x" + hashed.hex(),
        msgspec.Raw(row.payload.encode()),
    )


def _json(rows: list[Any]) -> str | None:
    return _encode(rows).decode() if rows else None


def _rows(decode: Callable[[str], list[State]], text: str | None) -> list[State]:
    return [] if text is None else decode(text)
