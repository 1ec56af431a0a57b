"""A log on paper: what Postgres keeps between two groups, and nothing else, so that groups are tested without it."""

from datetime import datetime
from typing import Any

import msgspec

from ledger import HoldState, StoredEvent
from ledger.events import HoldPlaced, HoldSettledLate, TopupCredited
from ledger.evolve import evolve
from ledger.group import EndEvent, Group, Loaded, Past
from ledger.reading import decode_event
from ledger.state import Books

_encode = msgspec.json.Encoder(order="deterministic").encode

Result = tuple[str, Any]


class PaperLog:
    """Submits groups one after the other, each over what the ones before it wrote."""

    def __init__(self) -> None:
        self.books = Books()
        self.events: list[StoredEvent] = []
        self._pasts: dict[tuple[str, str], Past] = {}

    def submit(self, commands: list[Any], now: datetime) -> list[Result]:
        """What became of each command: (accepted or replayed, (stream, seq)), or (refused, the refusal)."""
        group = self.group(now)
        outcomes = group.decide(commands)
        first = len(self.events)
        for row in group.rows:
            stored = StoredEvent(
                position=len(self.events) + 1,
                stream_id=row.stream_id,
                seq=row.seq,
                at=row.at,
                event=decode_event(row.payload),
                balance_microcents=row.balance,
            )
            self.events.append(stored)
            if row.idempotency_key is not None and row.request_hash is not None:
                past = Past(
                    position=stored.position,
                    stream_id=stored.stream_id,
                    seq=stored.seq,
                    at=stored.at,
                    idempotency_key=row.idempotency_key,
                    request_hash=row.request_hash.hex(),
                    event=stored.event,
                    balance_microcents=stored.balance_microcents,
                )
                self._pasts[row.stream_id, row.idempotency_key] = past
        return [self._result(outcome, first) for outcome in outcomes]

    def group(self, now: datetime) -> Group:
        """A group over everything that is written, at this moment."""
        loaded = Loaded(
            self.books,
            dict(self._pasts),
            ends=self._of_holds(EndEvent),
            places=self._of_holds(HoldPlaced),
            late=self._of_holds(HoldSettledLate),
            topups={topup_id: self.events_of_topup(topup_id) for topup_id in self.books.topups},
            payments={(e.provider, e.payment_id): e.topup_id for e in self.credited()},
        )
        return Group(loaded, now)

    def folded(self) -> Books:
        """The states, from the events alone."""
        books = Books()
        for stored in self.events:
            before = books.scope_of(stored.stream_id, stored.event)
            books.put(before, evolve(before, stored.event, stream_id=stored.stream_id, at=stored.at))
        return books

    def stream(self, stream_id: str) -> list[StoredEvent]:
        return [stored for stored in self.events if stored.stream_id == stream_id]

    def hold(self, hold_id: str) -> HoldState:
        return self.books.holds[hold_id]

    def events_of_topup(self, topup_id: str) -> list[StoredEvent]:
        return [stored for stored in self.events if getattr(stored.event, "topup_id", None) == topup_id]

    def credited(self) -> list[TopupCredited]:
        return [stored.event for stored in self.events if isinstance(stored.event, TopupCredited)]

    def _result(self, outcome: Any, first: int) -> Result:
        if outcome.refusal is not None:
            return "refused", outcome.refusal
        stored = outcome.stored if outcome.row is None else self.events[first + outcome.row]
        return "replayed" if outcome.replayed else "accepted", (stored.stream_id, stored.seq)

    def _of_holds(self, kind: Any) -> dict[str, StoredEvent]:
        return {stored.event.hold_id: stored for stored in self.events if isinstance(stored.event, kind)}


def as_bytes(books: Books) -> bytes:
    """Every state, byte for byte."""
    return _encode([books.accounts, books.keys, books.holds, books.topups])
