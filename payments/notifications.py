"""What providers told us, kept word for word, and what came of it: the rows of payment_notifications."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

import asyncpg
import msgspec

from ledger import load_queries, new_id
from payments.outcomes import readable

#: A notification is processed right after it was answered; when that did not happen, by somebody else after this long.
FIRST_PAUSE = timedelta(seconds=10)
LONGEST_PAUSE = timedelta(hours=1)
#: Taken at once.
BATCH = 100

Status = Literal["received", "processed", "ignored", "broken"]

_queries = load_queries("payments")
_BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """One event of a provider. ``broken``: it does not fit the books, nothing was booked."""

    id: str
    provider: str
    event_id: str
    event_type: str
    received_at: datetime
    body: bytes
    deliveries: int
    status: Status
    outcome: str | None  # None: not processed yet


class NotificationsAsked(msgspec.Struct, frozen=True, kw_only=True):
    """Which notifications: all that fit everything that is said here. ``until`` is exclusive."""

    start: datetime | None = None
    until: datetime | None = None
    provider: str | None = None
    id: str | None = None  # ours, or the provider's of the event
    status: Status | None = None


class NotificationStore:
    """Each method is one statement, except for the pages of ``asked``; when Postgres is away, ledger.UNREACHABLE."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def store(
        self,
        provider: str,
        *,
        event_id: str,
        event_type: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        now: datetime,
    ) -> Notification:
        """Keep a delivery, durably. Of an event that is kept already, what is kept of it."""
        row = await self._pool.fetchrow(
            _queries["store_notification"],
            new_id("ntf"),
            provider,
            event_id,
            event_type,
            now,
            msgspec.json.encode(headers).decode(),
            body,
            now + FIRST_PAUSE,
        )
        assert row is not None  # an upsert gives its row
        return Notification(**row)

    async def take_waiting(self, now: datetime, providers: Sequence[str] | None = None) -> list[Notification]:
        """Some of those that are due, for the caller to process; nobody else takes them before they are due again.

        Of these providers only, where some are named: what is taken and not processed would wait in vain.
        """
        rows = await self._pool.fetch(_queries["take_waiting"], now, FIRST_PAUSE, LONGEST_PAUSE, BATCH, providers)
        return [Notification(**row) for row in rows]

    async def finish(self, id_: str, status: Status, outcome: str) -> None:
        await self._pool.execute(_queries["finish_notification"], id_, status, readable(outcome))

    async def postpone(self, id_: str, why: str) -> None:
        """Note why it could not be processed yet, or again; it is due."""
        await self._pool.execute(_queries["postpone_notification"], id_, readable(why))

    async def asked(self, asked: NotificationsAsked) -> AsyncIterator[Notification]:
        """Oldest first, however many there are."""
        after, after_id = asked.start or _BEGINNING, ""
        while True:
            rows = await self._pool.fetch(
                _queries["notifications_page"],
                after,
                after_id,
                asked.until,
                asked.provider,
                asked.id,
                asked.status,
                BATCH,
            )
            for row in rows:
                yield Notification(**row)
            if len(rows) < BATCH:
                return
            after, after_id = rows[-1]["received_at"], rows[-1]["id"]
