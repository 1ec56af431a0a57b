"""Our side: what the ledger has of a provider, as lines in the provider's own currency."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal

import asyncpg

from ledger import Ledger, Microcents, load_queries, provider_stream
from ledger.events import Event, TopupCredited, TopupReinstated, TopupReversed, decode_event
from ledger.money import units_of
from ledger.providers import (
    PayoutFailed,
    PayoutInitiated,
    ProcessorFeeCharged,
    key_of_fee,
    keys_of_payout,
)
from ledger.reading import shard_of
from payments.reconciliation.lines import Line, LineKind, Period

_queries = load_queries("payments.reconciliation")

#: A chain that forgot a block forgot the payment itself.
_KINDS: dict[str, LineKind] = {"refund": "refund", "dispute": "dispute", "reorganisation": "payment"}


class LedgerLines:
    """Reads the ledger. Each method is a few statements; when Postgres is away, ledger.UNREACHABLE."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def of(self, provider: str, period: Period, theirs: Iterable[Line]) -> list[Line]:
        """What was booked in the period, and what was booked for these lines of the provider, whenever that was.

        Payments count from when they were credited; fees and payouts from when they happened, because they are booked
        when somebody first asks.
        """
        payments, keys = set(), set()
        for line in theirs:
            match line.kind:
                case "payment":
                    payments.add(line.reference)
                case "fee":
                    keys.add(key_of_fee(line.reference))
                case "payout":
                    keys.update(keys_of_payout(line.reference))
        return [*await self._of_topups(provider, period, payments), *await self._of_provider(provider, period, keys)]

    async def credited(self, provider: str, payments: Sequence[str]) -> set[str]:
        """Which of these payments were credited, whenever that was."""
        shards, pool = list(range(self._ledger.shards)), self._ledger.pool
        rows = await pool.fetch(_queries["credits_of_payments"], shards, provider, payments)
        return {row["payment_id"] for row in rows}

    async def events(self, provider: str, keys: Iterable[str]) -> list[Event]:
        """The events of the provider's stream that these idempotency keys stand for."""
        rows = await self._fetch_of_stream("provider_events_of_keys", provider, list(keys))
        return [decode_event(row["payload"]) for row in rows]

    async def _of_topups(self, provider: str, period: Period, payments: set[str]) -> list[Line]:
        shards, pool = list(range(self._ledger.shards)), self._ledger.pool
        rows = [
            *await pool.fetch(_queries["topup_movements"], shards, provider, period.start, period.end),
            *await pool.fetch(_queries["credits_of_payments"], shards, provider, list(payments)),
        ]
        return [_line_of_topup(row) for row in _once(rows)]

    async def _of_provider(self, provider: str, period: Period, keys: set[str]) -> list[Line]:
        happened = await self._fetch_of_stream("provider_events", provider, period.start, period.end)
        for row in happened:
            event = decode_event(row["payload"])
            if isinstance(event, PayoutInitiated):
                keys.update(keys_of_payout(event.payout_id))
        booked = await self._fetch_of_stream("provider_events_of_keys", provider, list(keys))
        lines = (_line_of_provider(row) for row in _once([*happened, *booked]))
        return [line for line in lines if line is not None]

    async def _fetch_of_stream(self, query: str, provider: str, *arguments: object) -> list[asyncpg.Record]:
        stream = provider_stream(provider)
        shard = shard_of(stream, self._ledger.shards)
        return list(await self._ledger.pool.fetch(_queries[query], shard, stream, *arguments))


def provider_amount(microcents: int, *, of: int, asked: Decimal) -> Decimal:
    """So much of a top-up, of which ``of`` microcents were credited for ``asked``, in what the provider moves.

    Rounded up to its smallest unit, in which ``asked`` is written: what was taken back for a whole number of these was
    rounded down to a microcent, so that exactly that number comes out again.
    """
    exponent = asked.as_tuple().exponent
    assert isinstance(exponent, int)  # nobody is asked for what is not finite
    units = int(asked.scaleb(-exponent))
    return Decimal(-(-microcents * units // of)).scaleb(exponent)


def _line_of_topup(row: asyncpg.Record) -> Line:
    event, kind, amount, currency = decode_event(row["payload"]), "payment", Decimal(0), row["asked_currency"]
    match event:
        case TopupCredited():
            amount, currency = event.paid.amount, event.paid.currency
        case TopupReversed():
            kind, amount = event.kind, -_moved(row, event.total_microcents - event.amount_microcents, event)
        case TopupReinstated():
            kind, amount = event.kind, -_moved(row, event.total_microcents + event.amount_microcents, event)
    return Line(
        kind=_KINDS.get(kind, "payment"),
        reference=row["payment_id"],
        currency=currency,
        amount=amount,
        at=row["at"],
        id=_place(row),
        topup_id=row["topup_id"],
        account_id=row["account_id"],
    )


def _moved(row: asyncpg.Record, before: int, event: TopupReversed | TopupReinstated) -> Decimal:
    """What was taken back by the event, below zero what was given back, in what the provider moves."""
    then, now = (
        provider_amount(total, of=row["amount"], asked=row["asked_amount"])
        for total in (before, event.total_microcents)
    )
    return now - then


def _line_of_provider(row: asyncpg.Record) -> Line | None:
    """None for what moves nothing of the provider's: a payout leaves it when it is initiated, not when it arrives."""
    event = decode_event(row["payload"])
    match event:
        case ProcessorFeeCharged():
            charged = event.charged_microcents - event.refunded_microcents
            return _line(row, "fee", event.reference, event.currency, -charged, event.happened_at)
        case PayoutInitiated():
            return _line(row, "payout", event.payout_id, event.currency, -event.amount_microcents, event.happened_at)
        case PayoutFailed():
            back = event.in_transit_microcents + event.paid_microcents
            return _line(row, "payout", event.payout_id, event.currency, back, row["at"])
        case _:
            return None


def _line(row: asyncpg.Record, kind: LineKind, reference: str, currency: str, microcents: int, at: datetime) -> Line:
    amount = units_of(Microcents(microcents))
    return Line(kind=kind, reference=reference, currency=currency, amount=amount, at=at, id=_place(row))


def _place(row: asyncpg.Record) -> str:
    return f"{row['shard']}:{row['position']}"


def _once(rows: Iterable[asyncpg.Record]) -> list[asyncpg.Record]:
    return list({_place(row): row for row in rows}.values())
