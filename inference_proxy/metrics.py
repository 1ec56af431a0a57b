"""What the gate counts, in Prometheus' words.

The processes of a server share their numbers through files, and a write there costs microseconds, several times a
request. So a request only adds to numbers in memory (``TALLY``), which are written out once a second.
"""

import asyncio
from collections import defaultdict

from prometheus_client import Counter, Gauge, Histogram

from ledger import Ledger

REQUESTS = Counter("tollgate_requests_total", "Metered requests by how they ended.", ["operation", "outcome"])
DURATION = Histogram(
    "tollgate_request_seconds",
    "From the request's first byte to the answer's last.",
    ["operation"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
HOLDS = Counter(
    "tollgate_holds_total", "Holds by what happened to them: placed, settled, settled_late, voided.", ["event"]
)
OVERRUNS = Counter("tollgate_overruns_total", "Settlements above their hold: a bound was wrong.", ["model"])
UNREADABLE_USAGE = Counter("tollgate_unreadable_usage_total", "Answers whose usage made no sense.", ["backend"])
UNKNOWN_METERS = Counter("tollgate_unknown_meters_total", "Usage that the price program does not read.", ["meter"])
BACKEND_FAILURES = Counter("tollgate_backend_failures_total", "Failed attempts by backend.", ["backend"])
RECOVERED = Counter("tollgate_recovered_settlements_total", "Settlements that dead processes left.", ["outcome"])
IN_FLIGHT = Gauge("tollgate_requests_in_flight", "Metered requests being served.", multiprocess_mode="livesum")
WAITING = Gauge("tollgate_ledger_waiting", "Commands that wait for their group.", multiprocess_mode="livesum")

FLUSH_EVERY_S = 1.0


class Tally:
    """Numbers of this process that are not written out yet."""

    def __init__(self) -> None:
        self.in_flight = 0
        self._counts: dict[tuple[Counter, tuple[str, ...]], int] = defaultdict(int)
        self._durations: dict[str, list[float]] = defaultdict(list)

    def count(self, counter: Counter, *labels: str) -> None:
        """Add one to the counter with these labels."""
        self._counts[counter, labels] += 1

    def took(self, operation: str, seconds: float) -> None:
        """A request of the operation took so long."""
        self._durations[operation].append(seconds)

    def flush(self, *, waiting: int) -> None:
        """Write everything out. ``waiting`` commands wait for the ledger now."""
        counts, self._counts = self._counts, defaultdict(int)
        for (counter, labels), number in counts.items():
            counter.labels(*labels).inc(number)
        durations, self._durations = self._durations, defaultdict(list)
        for operation, seconds in durations.items():
            histogram = DURATION.labels(operation)
            for each in seconds:
                histogram.observe(each)
        IN_FLIGHT.set(self.in_flight)
        WAITING.set(waiting)


TALLY = Tally()


async def flush_regularly(ledger: Ledger) -> None:
    """Write the numbers out once a second until cancelled, and once more then."""
    try:
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            TALLY.flush(waiting=ledger.waiting)
    finally:
        TALLY.flush(waiting=0)
