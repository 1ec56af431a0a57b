"""Every provider's every day, reconciled once: by whichever worker takes it first.

A day is taken up when the provider's books of it are closed, looked at once more when what came late has arrived, and
every day for as long as it has breaks that nobody resolved, until it is given up to people. What could not be done is
done again.
"""

from collections.abc import Callable, Iterable
from datetime import date, datetime, timedelta

import msgspec
import structlog

from ledger import Ledger, load_queries, provider_stream
from ledger.reading import shard_of
from payments.errors import PaymentsError
from payments.reconciliation.lines import Source, days_of
from payments.reconciliation.metrics import LAST_GOOD_RUN, OPEN_BREAKS
from payments.reconciliation.reconciler import Reconciler
from payments.reconciliation.reports import Report

#: When a day is looked at again: Stripe tells of a payment for three days until somebody listens.
LATE_ITEMS = timedelta(days=4)
AGAIN_WITH_BREAKS = timedelta(days=1)
GIVEN_UP_AFTER = timedelta(days=60)
#: Of days that nobody reconciled, because no worker ran.
LOOK_BACK = timedelta(days=31)
#: A worker that has not finished a day by then is taken for dead.
TAKEN_FOR = timedelta(minutes=30)
AFTER_A_FAILURE = timedelta(minutes=15)

BREAK_KINDS = ("missing_here", "missing_there", "different_amount", "different_currency")

_queries = load_queries("payments.reconciliation")
_log = structlog.get_logger(__name__)


class DayRun(msgspec.Struct, frozen=True, kw_only=True):
    """The last reconciliation of one day, and what is to come."""

    provider: str
    day: date
    finished_at: datetime | None  # None: not yet
    next_at: datetime | None  # None: never again
    tries: int
    matched: int
    breaks: list[str]  # ids, resolved ones too
    problem: str | None  # why the last try did not come to its end


class DailyReconciliation:
    """Any number may run."""

    def __init__(self, ledger: Ledger, sources: Iterable[Source], clock: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._sources = list(sources)
        self._clock = clock
        self._reconciler = Reconciler(ledger, clock)

    async def run(self) -> int:
        """Do what is due; returns how many days that were. Raises one of ledger.UNREACHABLE."""
        done = 0
        for source in self._sources:
            await self._open_days(source)
            while (day := await self._take(source)) is not None:
                await self._reconcile(source, day)
                done += 1
        return done

    async def measure(self) -> None:
        """Set the metrics. Raises one of ledger.UNREACHABLE."""
        pool = self._ledger.pool
        for source in self._sources:
            stream = provider_stream(source.provider)
            shard = shard_of(stream, self._ledger.shards)
            rows = await pool.fetch(_queries["open_breaks"], source.provider, shard, stream)
            counts = {row["kind"]: row["breaks"] for row in rows}
            for kind in BREAK_KINDS:
                OPEN_BREAKS.labels(source.provider, kind).set(counts.get(kind, 0))
            last = await pool.fetchval(_queries["last_good_run"], source.provider)
            if last is not None:
                LAST_GOOD_RUN.labels(source.provider).set((self._clock() - last).total_seconds())

    async def runs(self, provider: str | None = None, *, limit: int = 100) -> list[DayRun]:
        """Newest days first."""
        rows = await self._ledger.pool.fetch(_queries["runs"], provider, limit)
        return [DayRun(**row) for row in rows]

    async def _open_days(self, source: Source) -> None:
        now = self._clock()
        last = (now - source.ready_after).astimezone(source.zone).date() - timedelta(days=1)
        await self._ledger.pool.execute(_queries["open_days"], source.provider, last, last - LOOK_BACK, now)

    async def _take(self, source: Source) -> date | None:
        now = self._clock()
        day: date | None = await self._ledger.pool.fetchval(_queries["take_day"], source.provider, now, now + TAKEN_FOR)
        return day

    async def _reconcile(self, source: Source, day: date) -> None:
        try:
            report = await self._reconciler.reconcile(source, days_of(day, day + timedelta(days=1), source.zone))
        except PaymentsError as error:
            _log.error("reconciliation.failed", provider=source.provider, day=day, error=str(error))
            again = self._clock() + AFTER_A_FAILURE
            await self._ledger.pool.execute(_queries["fail_day"], source.provider, day, str(error), again)
            return
        if report.unresolved:
            _log.error("reconciliation.broken", provider=source.provider, day=day, **report.counts)
        await self._ledger.pool.execute(
            _queries["finish_day"],
            source.provider,
            day,
            self._clock(),
            report.counts["matched"],
            [item.break_id for item in report.breaks],
            self._next_look(report),
        )

    def _next_look(self, report: Report) -> datetime | None:
        now, end = self._clock(), report.period.end
        if now < end + LATE_ITEMS:
            return end + LATE_ITEMS
        if report.unresolved and now < end + GIVEN_UP_AFTER:
            return now + AGAIN_WITH_BREAKS
        return None
