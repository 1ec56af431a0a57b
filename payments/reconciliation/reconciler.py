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
from payments.reconciliation.matching import Item, Subject, match, may_be_late, subject_of
from payments.reconciliation.reports import Report, rows_of

#: How far both sides are read beyond the period.
MARGIN = timedelta(days=3)
#: How far they are read beyond it for what we seem to have booked later than that, or of what moved earlier.
LONG_MARGIN = timedelta(days=60)
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
        late = {subject_of(item) for item in items if may_be_late(item)}
        if late:
            items = [item for item in items if subject_of(item) not in late]
            items += await self._compared_for_longer(source, period, late)
        report = Report(
            provider=source.provider,
            period=period,
            made_at=now,
            items=sorted(items, key=subject_of),
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

    async def _compared_for_longer(self, source: Source, period: Period, subjects: set[Subject]) -> list[Item]:
        """These in the period, where either side may have been late. Both are read for equally long: what is there
        without its other side could be taken for the other side of something else."""
        longer = period.widened(LONG_MARGIN)
        longer = Period(longer.start, min(longer.end, self._clock()))
        statement = await source.statement(longer, needed=period)
        theirs = [line for line in statement.lines if subject_of(line) in subjects]
        ours = await self._lines.of(source.provider, longer, theirs)
        return match(source.provider, theirs, [line for line in ours if subject_of(line) in subjects], period)

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
