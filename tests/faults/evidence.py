"""What the books and the backends say about each request, to be held against what its client saw."""

from collections import Counter, defaultdict
from typing import Any

import asyncpg
import msgspec

from tests.faults.clients import Seen
from tests.faults.installation import Installation

ENDS = ("hold.settled", "hold.voided", "hold.expired")
CHARGES = ("hold.settled", "hold.settled_late")

_EVENTS = """
SELECT type, stream_id, extract(epoch FROM recorded_at)::float8 AS recorded_at, hold_id, payload::text AS payload,
       balance_microcents, held_microcents
FROM events WHERE stream_id <> 'prices' ORDER BY shard, position
"""
_TOPUPS = """
SELECT topup_id, payment_id, status, amount, refunded + disputed + reorganised AS taken_back FROM topup_states
"""


class Attempt(msgspec.Struct, frozen=True):
    """One line of a backend's journal."""

    request_id: str
    status: int
    outcome: str
    stream: bool
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    tokens_written: int
    started_at: float
    ended_at: float


class BookedHold(msgspec.Struct, kw_only=True):
    """A hold and what became of it, from its events."""

    hold_id: str
    account_id: str
    model: str
    request_id: str | None
    placed_at: float  # when it was written down, seconds since 1970
    ends: list[str] = []
    ended_at: float | None = None
    reason: str = ""  # of its end, where nothing was charged; else its outcome
    charges: int = 0  # how many times something was charged, be it nothing
    charged_microcents: int = 0
    usage: dict[str, Any] = {}
    served: dict[str, Any] = {}  # what the gate says of how it was served
    retry_count: int = 0

    @property
    def is_swept(self) -> bool:
        return self.ends == ["hold.expired"]


class BookedTopup(msgspec.Struct, frozen=True):
    """A top-up as the books have it."""

    topup_id: str
    payment_id: str | None
    status: str
    amount: int  # microcents, as the next
    taken_back: int


class Books(msgspec.Struct, kw_only=True):
    """All holds by id, and what went on and off each account."""

    holds: dict[str, BookedHold] = {}
    credited: Counter[str] = msgspec.field(default_factory=Counter)
    spent: Counter[str] = msgspec.field(default_factory=Counter)
    indebted: Counter[str] = msgspec.field(default_factory=Counter)
    #: Of each key: charged above what was held, or after the hold had ended.
    beyond_holds: Counter[str | None] = msgspec.field(default_factory=Counter)
    lowest_available: dict[str, int] = {}  # of each account before anything was owed


class Case(msgspec.Struct, frozen=True):
    """One hold, who it was for as far as anybody knows, and the backends' work for it."""

    hold: BookedHold
    seen: list[Seen]  # several for a request that was repeated with its Idempotency-Key
    attempts: list[Attempt]


async def read_topups(installation: Installation) -> list[BookedTopup]:
    """All of them, as they stand."""
    return [BookedTopup(**topup) for topup in await installation.fetch(_TOPUPS)]


async def read_books(installation: Installation) -> Books:
    """Every event once, in order."""
    books = Books()
    for event in await installation.fetch(_EVENTS):
        payload = msgspec.json.decode(event["payload"])
        account_id = event["stream_id"]
        if event["type"] in ("credit.granted", "topup.credited", "topup.reinstated"):
            books.credited[account_id] += payload["amount_microcents"]
        elif event["type"] == "topup.reversed":
            books.credited[account_id] -= payload["amount_microcents"]
        elif event["type"] == "hold.placed":
            books.holds[event["hold_id"]] = BookedHold(
                hold_id=event["hold_id"],
                account_id=account_id,
                model=payload["model"],
                request_id=payload.get("request_id"),
                placed_at=event["recorded_at"],
                retry_count=payload.get("retry_count", 0),
            )
        elif event["hold_id"] is not None:
            _end(books, event, payload)
        if event["balance_microcents"] is not None and not books.indebted[account_id]:
            available = event["balance_microcents"] - event["held_microcents"]
            books.lowest_available[account_id] = min(available, books.lowest_available.get(account_id, 0))
    return books


def _end(books: Books, event: asyncpg.Record, payload: dict[str, Any]) -> None:
    kind, account_id, hold = event["type"], event["stream_id"], books.holds[event["hold_id"]]
    if kind in ENDS:
        hold.ends.append(kind)
        hold.ended_at = event["recorded_at"]
        hold.served = payload.get("served") or {}
        hold.reason = payload.get("reason") or payload.get("outcome", "completed")
    if kind in CHARGES:
        hold.charges += 1
        hold.charged_microcents += payload["amount_microcents"]
        hold.usage = payload["usage"]
        hold.served = payload.get("served") or {}
        books.spent[account_id] += payload["amount_microcents"]
        books.indebted[account_id] += payload["debt_microcents"]
        is_late = kind == "hold.settled_late"
        books.beyond_holds[payload.get("key_id")] += payload["amount_microcents" if is_late else "overrun_microcents"]


def read_journals(installation: Installation) -> dict[str, list[Attempt]]:
    """By request id, what every backend did for it."""
    attempts = defaultdict(list)
    for backend in installation.backends:
        for line in backend.journal.read_bytes().splitlines():
            attempt = msgspec.json.decode(line, type=Attempt)
            attempts[attempt.request_id].append(attempt)
    return attempts


def cases_of(
    installation: Installation, books: Books, seen: list[Seen], attempts: dict[str, list[Attempt]]
) -> list[Case]:
    """Each hold with those whom it was for. A client knows the id of its request from its answer, or our links do."""
    forwarded: dict[int, set[str]] = defaultdict(set)
    for backend in installation.backends:
        for number, request_ids in backend.link.forwarded.items():
            forwarded[number] |= request_ids
    of_hold, of_request = defaultdict(list), defaultdict(list)
    for each in seen:
        if each.hold_id is not None:
            of_hold[each.hold_id].append(each)
        else:
            for request_id in forwarded[each.ask.number] if each.request_id is None else {each.request_id}:
                of_request[request_id].append(each)
    return [
        Case(
            hold=hold,
            seen=of_hold[hold.hold_id] + of_request[hold.request_id or ""],
            attempts=attempts.get(hold.request_id or "", []),
        )
        for hold in books.holds.values()
    ]
