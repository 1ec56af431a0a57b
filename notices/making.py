"""From the log to the outbox: each event makes each of its notices once, however many processes follow the log.

The notices are written in the transaction that moves the checkpoint, and their ids follow from what they tell of. What
an event makes depends on the events before it, on the endpoints and on the threshold, never on where a batch begins.
"""

import base64
import hashlib
from collections.abc import Iterable, Iterator

import asyncpg

from ledger import load_queries
from ledger.events import decode_event
from ledger.reading import Connection
from notices.contents import TOLD_EVENTS, Noteworthy, bodies_of
from notices.metrics import MADE
from projections import catch_up

#: Events looked at in one transaction.
BATCH = 20_000

_queries = load_queries("notices")


class NoticeMaker:
    """Follows the log of every shard behind checkpoints of its own: a rebuild makes no notice again."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def catch_up(self) -> None:
        """Make the notices of everything that is in the log now. Raises one of ledger.UNREACHABLE."""
        await catch_up(self._pool, self)

    async def checkpoint(self, connection: Connection, shard: int) -> int:
        return int(await connection.fetchval(_queries["notice_checkpoint"], shard) or 0)

    async def advance(self, connection: Connection, shard: int, head: int) -> int:
        async with connection.transaction():
            await connection.execute(_queries["ensure_notice_checkpoint"], shard)
            after: int = await connection.fetchval(_queries["lock_notice_checkpoint"], shard)
            upto = min(head, after + BATCH)
            if upto <= after:
                return after
            rows = await connection.fetch(_queries["noteworthy_events"], shard, after, upto, TOLD_EVENTS)
            noted = [_noteworthy(row) for row in rows]
            endpoints = await connection.fetch(
                _queries["endpoints_to_tell"], shard, sorted({event.account_id for event in noted})
            )
            notices = list(_notices(shard, noted, endpoints))
            if notices:
                columns = [list(column) for column in zip(*notices, strict=True)]
                await connection.execute(_queries["add_notices"], shard, *columns)
            await connection.execute(_queries["move_notice_checkpoint"], shard, upto)
        for _, _, type_, _, _ in notices:
            MADE.labels(type_).inc()
        return upto


def notice_id_of(shard: int, position: int, endpoint_id: str, type_: str) -> str:
    """The id by which a receiver knows a repetition; the same event never makes another one."""
    digest = hashlib.sha256(f"{shard}/{position}/{endpoint_id}/{type_}".encode()).digest()
    return "msg_" + base64.b32encode(digest[:20]).decode().lower()


def _notices(
    shard: int, noted: Iterable[Noteworthy], endpoints: Iterable[asyncpg.Record]
) -> Iterator[tuple[str, str, str, str, object]]:
    """(id, endpoint, type, body, moment) of each notice."""
    by_account: dict[str, list[asyncpg.Record]] = {}
    for endpoint in endpoints:
        by_account.setdefault(endpoint["account_id"], []).append(endpoint)
    for event in noted:
        for type_, body in bodies_of(event):
            for endpoint in by_account.get(event.account_id, ()):
                wants_it = endpoint["types"] is None or type_ in endpoint["types"]
                if wants_it and event.position > endpoint["after_position"]:
                    id_ = notice_id_of(shard, event.position, endpoint["endpoint_id"], type_)
                    yield id_, endpoint["endpoint_id"], type_, body, event.at


def _noteworthy(row: asyncpg.Record) -> Noteworthy:
    return Noteworthy(
        position=row["position"],
        account_id=row["stream_id"],
        at=row["at"],
        event=decode_event(row["payload"]),
        currency=row["currency"],
        posted=row["balance_microcents"],
        held=row["held_microcents"],
        crossed=row["threshold"],
        source=row["provider"],
        asked=row["amount"],
    )
