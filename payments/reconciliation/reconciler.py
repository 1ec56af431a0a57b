"""One reconciliation: their statement, what of it is booked from here, our lines, and what does not fit."""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

import msgspec
import structlog

from ledger import Ledger, ResolveBreak, load_queries, provider_stream
from ledger.providers import BreakResolved, key_of_break
from payments.errors import BreakNotFound, PeriodNotOver
from payments.provider_events import book_provider_events
from payments.reconciliation.ledger_lines import LedgerLines
from payments.reconciliation.lines import Period, Source
from payments.reconciliation.matching import Item, match
from payments.reconciliation.reports import Report, rows_of

#: How far both sides are read beyond the period: what we book later than that is missing until the next look.
MARGIN = timedelta(days=3)
_queries = load_queries("payments.reconciliation")
_log = structlog.get_logger(__name__)


class Reconciler:
    """Compares, and books fees and payouts on the way. The same again finds the same; any number may run at once."""

    def __init__(self, ledger: Ledger, clock: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._lines = LedgerLines(ledger)

    async def reconcile(self, source: Source, period: Period) -> Report:
        """Raises PeriodNotOver; ProviderUnavailable and ProviderRefused when their books cannot be had whole;
        ledger.LedgerUnavailable or one of ledger.UNREACHABLE."""
        now = self._clock()
        if now < period.end + source.ready_after:
            raise PeriodNotOver(source.provider, period.end + source.ready_after)
        wide = period.widened(MARGIN)
        statement = await source.statement(Period(wide.start, min(wide.end, now)), needed=period)
        for refusal in await book_provider_events(self._ledger, statement.commands):
            _log.warning("provider_event.refused", provider=source.provider, problem=str(refusal))  # a difference, then
        ours = await self._lines.of(source.provider, wide, statement.lines)
        items = match(source.provider, statement.lines, ours, period)
        report = Report(
            provider=source.provider,
            period=period,
            made_at=now,
            items=items,
            resolutions=await self._resolutions(source.provider, items),
        )
        await self._note(report)
        _log.info("reconciliation.made", provider=source.provider, start=period.start, **report.counts)
        return report

    async def resolve(self, break_id: str, *, reason: str, resolved_by: str) -> BreakResolved:
        """Raises BreakNotFound when no run has found it; the ledger's IdempotencyMismatch when it was resolved in
        another way, and LedgerUnavailable."""
        found = await self._ledger.pool.fetchrow(_queries["break"], break_id)
        if found is None:
            raise BreakNotFound(break_id)
        committed = await self._ledger.submit(
            ResolveBreak(
                stream_id=provider_stream(found["provider"]),
                provider=found["provider"],
                break_id=break_id,
                kind=found["kind"],
                reason=reason,
                resolved_by=resolved_by,
            )
        )
        event = committed.stored.event
        assert isinstance(event, BreakResolved)  # what else the command becomes
        return event

    async def _resolutions(self, provider: str, items: Iterable[Item]) -> dict[str, BreakResolved]:
        keys = [key_of_break(item.break_id) for item in items if item.break_id is not None]
        events = await self._lines.events(provider, keys)
        return {event.break_id: event for event in events if isinstance(event, BreakResolved)}

    async def _note(self, report: Report) -> None:
        found = list(zip(report.breaks, rows_of(report, report.breaks), strict=True))
        await self._ledger.pool.execute(
            _queries["note_breaks"],
            report.made_at,
            report.provider,
            [item.break_id for item, _ in found],
            [item.status for item, _ in found],
            [msgspec.json.encode(row).decode() for _, row in found],
        )
