"""The way of a notification: stored, answered, and then processed, by whoever comes to it.

The process that answered it begins at once. If that one dies, or Postgres or the provider is away, the background
process tries again, less and less often, for as long as it takes. Replaying is the same for what is over.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import TypeAlias

import structlog

from ledger import UNREACHABLE, LedgerUnavailable
from payments.errors import Break, ProviderRefused, ProviderUnavailable
from payments.metrics import BREAKS, NOTIFICATIONS
from payments.notifications import Notification, NotificationsAsked, NotificationStore
from payments.outcomes import Outcome

#: Books a body of one provider; see ``StripeBooking.book``.
Book: TypeAlias = Callable[[bytes], Awaitable[Outcome]]

_PASSING = (*UNREACHABLE, LedgerUnavailable, ProviderUnavailable)

_log = structlog.get_logger(__name__)


class Inbox:
    """One per process. ``books`` is by provider: there are notifications of these only."""

    def __init__(self, store: NotificationStore, books: Mapping[str, Book], clock: Callable[[], datetime]) -> None:
        self._store = store
        self._books = books
        self.clock = clock
        self._processing: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        """Finish what was begun."""
        await asyncio.gather(*self._processing)

    async def take(
        self, provider: str, event_id: str, event_type: str, *, headers: Sequence[tuple[str, str]], body: bytes
    ) -> None:
        """Store a verified delivery; it is processed as soon as the caller lets go. Raises one of ledger.UNREACHABLE.

        An event that came before is processed again only if it was not, so that a failure never counts as done.
        """
        notification = await self._store.store(
            provider, event_id=event_id, event_type=event_type, headers=headers, body=body, now=self.clock()
        )
        NOTIFICATIONS.labels(provider, "stored" if notification.deliveries == 1 else "repeated").inc()
        if notification.status == "received":
            task = asyncio.create_task(self.process(notification), name=f"process {notification.id}")
            self._processing.add(task)
            task.add_done_callback(self._processing.discard)

    async def process_waiting(self) -> int:
        """Process what is due; returns how many there were. Raises one of ledger.UNREACHABLE."""
        waiting = await self._store.take_waiting(self.clock(), list(self._books))
        for notification in waiting:
            await self.process(notification)
        return len(waiting)

    async def replay(self, asked: NotificationsAsked) -> AsyncIterator[Notification]:
        """Process the notifications again, whatever came of them before; gives each as it is now."""
        async for notification in self._store.asked(asked):
            if notification.provider in self._books:
                await self.process(notification)
                async for processed in self._store.asked(NotificationsAsked(id=notification.id)):
                    yield processed

    async def process(self, notification: Notification) -> None:
        """Book it and note what came of it. Whatever goes wrong is noted and logged: it is due again, or broken."""
        log = _log.bind(notification_id=notification.id, event_id=notification.event_id, type=notification.event_type)
        try:
            outcome = await self._books[notification.provider](notification.body)
            await self._store.finish(notification.id, outcome.status, outcome.text)
        except Break as found:
            BREAKS.labels(notification.provider, found.reason).inc()
            log.error("payment.broken", reason=found.reason, problem=str(found))
            await self._note(self._store.finish(notification.id, "broken", f"{found.reason}: {found}"))
        except _PASSING as error:
            log.warning("payment.postponed", error=repr(error))
            await self._note(self._store.postpone(notification.id, str(error)))
        except ProviderRefused as refused:  # a wrong key, perhaps: somebody has to mend it, and then it goes on
            log.error("payment.postponed", error=str(refused))
            await self._note(self._store.postpone(notification.id, str(refused)))
        except Exception as error:
            log.exception("payment.failed")
            await self._note(self._store.postpone(notification.id, repr(error)))
        else:
            log.info("payment.processed", outcome=outcome.text)

    async def _note(self, noting: Awaitable[None]) -> None:
        try:
            await noting
        except UNREACHABLE as error:  # still due, then
            _log.warning("payment.not_noted", error=repr(error))
