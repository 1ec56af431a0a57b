"""What a reconciliation found, as finance reads it: one row for each item, with columns that stay as they are."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final

import msgspec

from ledger.providers import BreakResolved
from payments.reconciliation.lines import Line, Period
from payments.reconciliation.matching import Item


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a reconciliation found in a period."""

    provider: str
    period: Period
    made_at: datetime
    items: list[Item]
    resolutions: dict[str, BreakResolved]  # by break

    @property
    def counts(self) -> Counter[str]:
        """Items by status; breaks count whether they are resolved or not."""
        return Counter(item.status for item in self.items)

    @property
    def breaks(self) -> list[Item]:
        return [item for item in self.items if item.break_id is not None]

    @property
    def unresolved(self) -> list[Item]:
        return [item for item in self.breaks if item.break_id not in self.resolutions]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One item in words. New columns come at the end; none is ever taken away or changes its meaning."""

    provider: str
    status: str  # matched, missing_here, missing_there, different_amount, different_currency
    is_resolved: bool | None  # None: there is nothing to resolve
    break_id: str | None
    kind: str  # payment, refund, dispute, fee, payout, other
    reference: str  # the provider's id of what moved
    their_amount: str | None  # in the currency's major unit, exact; several currencies have a semicolon between them
    their_currency: str | None
    their_at: datetime | None  # the first of their lines
    their_lines: str  # ids in their books, with spaces between them
    our_amount: str | None
    our_currency: str | None
    our_at: datetime | None
    our_lines: str  # shard:position in the log
    topup_id: str | None
    account_id: str | None
    resolved_by: str | None
    reason: str | None


COLUMNS: Final = Row.__struct_fields__


def rows_of(report: Report, items: Iterable[Item]) -> list[Row]:
    """These items of the report."""
    return [_row(report, item) for item in items]


def as_csv(report: Report) -> str:
    """All rows below a header, by RFC 4180; what is not there is empty."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for row in rows_of(report, report.items):
        writer.writerow(_cell(getattr(row, name)) for name in COLUMNS)
    return text.getvalue()


def as_json(report: Report) -> str:
    """The period, counts by status, and all rows."""
    said = {
        "provider": report.provider,
        "from": report.period.start,
        "to": report.period.end,
        "made_at": report.made_at,
        "counts": dict(sorted(report.counts.items())),
        "unresolved": len(report.unresolved),
        "items": rows_of(report, report.items),
    }
    return msgspec.json.format(msgspec.json.encode(said)).decode() + "\n"


def _row(report: Report, item: Item) -> Row:
    resolution = None if item.break_id is None else report.resolutions.get(item.break_id)
    ours = item.ours[0] if item.ours else None
    return Row(
        provider=report.provider,
        status=item.status,
        is_resolved=None if item.break_id is None else resolution is not None,
        break_id=item.break_id,
        kind=item.kind,
        reference=item.reference,
        their_amount=_amounts(item.theirs),
        their_currency=_currencies(item.theirs),
        their_at=_first(item.theirs),
        their_lines=" ".join(line.id for line in item.theirs),
        our_amount=_amounts(item.ours),
        our_currency=_currencies(item.ours),
        our_at=_first(item.ours),
        our_lines=" ".join(line.id for line in item.ours),
        topup_id=None if ours is None else ours.topup_id,
        account_id=None if ours is None else ours.account_id,
        resolved_by=None if resolution is None else resolution.resolved_by,
        reason=None if resolution is None else resolution.reason,
    )


def _amounts(lines: Sequence[Line]) -> str | None:
    return ";".join(amount_text(amount) for amount in _sums(lines).values()) or None


def _currencies(lines: Sequence[Line]) -> str | None:
    return ";".join(_sums(lines)) or None


def _sums(lines: Sequence[Line]) -> dict[str, Decimal]:
    sums: dict[str, Decimal] = {}
    for line in lines:
        sums[line.currency] = sums.get(line.currency, Decimal(0)) + line.amount
    return sums


def _first(lines: Sequence[Line]) -> datetime | None:
    return min((line.at.astimezone(UTC) for line in lines), default=None)


def amount_text(amount: Decimal) -> str:
    """Exact, with at least two decimals."""
    whole, _, decimals = f"{amount:f}".partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(2, '0')}"


def _cell(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case datetime():
            return value.isoformat()
        case _:
            return str(value)
