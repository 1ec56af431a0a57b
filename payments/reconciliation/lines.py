"""What both sides are brought to before they are compared: lines, each one movement of money."""

from datetime import date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from typing import Literal, Protocol

import msgspec

from ledger.providers import ProviderCommand

#: What moved. ``other`` is what providers do beside top-ups, fees and payouts: it is in no books of ours.
LineKind = Literal["payment", "refund", "dispute", "fee", "payout", "other"]


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One movement in somebody's books. Lines of one kind and reference are about the same thing."""

    kind: LineKind
    reference: str  # the provider's id of what moved, by which both sides know it
    currency: str
    amount: Decimal  # in the currency's major unit; what the provider holds for us grew by it, or shrank
    at: datetime
    id: str  # of the line, in the books that it is from: the provider's own, or shard:position
    topup_id: str | None = None
    account_id: str | None = None


class Period(msgspec.Struct, frozen=True):
    """From ``start`` until ``end``, which is not included."""

    start: datetime
    end: datetime

    def has(self, at: datetime) -> bool:
        return self.start <= at < self.end

    def widened(self, by: timedelta) -> "Period":
        return Period(self.start - by, self.end + by)


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider's own books say of a period, and what of it the ledger books from here: fees and payouts."""

    lines: list[Line]
    commands: list[ProviderCommand]


class Source(Protocol):
    """A provider's own books."""

    @property
    def provider(self) -> str: ...

    @property
    def zone(self) -> tzinfo:
        """Whose midnight its days begin at."""
        ...

    @property
    def ready_after(self) -> timedelta:
        """How long after a day its books of that day are closed."""
        ...

    async def statement(self, period: Period, *, needed: Period) -> Statement:
        """All of the period, of which ``needed`` must be there. Raises ProviderUnavailable or ProviderRefused when any
        part of it cannot be had: a part is never given for the whole."""
        ...


def days_of(first: date, until: date, zone: tzinfo) -> Period:
    """From the beginning of the first day to the beginning of the other, as clocks of the zone have it."""
    return Period(datetime.combine(first, time(), zone), datetime.combine(until, time(), zone))
