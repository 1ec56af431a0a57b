"""A limit on how often somebody may try, kept in memory: it slows guessing down, and decides nothing about money."""

from collections import OrderedDict
from collections.abc import Callable

#: Whom a throttle remembers at most; the one that has not tried for longest is forgotten first. Some megabytes.
MAX_REMEMBERED = 50_000


class Throttle:
    """``burst`` tries at once, then one every ``interval_s``: a token bucket, kept as the time at which it is full."""

    def __init__(self, *, burst: int, interval_s: float, monotonic: Callable[[], float]) -> None:
        self._window_s = burst * interval_s
        self._interval_s = interval_s
        self._monotonic = monotonic
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def take(self, who: str) -> float:
        """Count a try. 0 when it is allowed, else the seconds until one is; then nothing was counted."""
        now = self._monotonic()
        full_at = max(self._full_at.get(who, now), now) + self._interval_s
        wait_s = full_at - now - self._window_s
        if wait_s > 0:
            return wait_s
        self._full_at[who] = full_at
        self._full_at.move_to_end(who)
        if len(self._full_at) > MAX_REMEMBERED:
            self._full_at.popitem(last=False)
        return 0.0

    def forgive(self, who: str) -> None:
        """Forget the tries so far: the last one showed that they were honest."""
        self._full_at.pop(who, None)
