"""Limits over time, as pure functions of the time they are asked about. Nothing is ever reset by a job."""

from datetime import UTC, datetime, timedelta

MINUTE = timedelta(minutes=1)


def month_of(at: datetime) -> str:
    """The calendar month, UTC, that a moment belongs to: ``2026-11``."""
    at = at.astimezone(UTC)
    return f"{at.year:04}-{at.month:02}"


def month_end(at: datetime) -> datetime:
    """The first moment, UTC, of the calendar month after ``at``."""
    first = at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)


def request_interval(limit_rpm: int) -> timedelta:
    """The time in which one request's worth of the allowance grows back, rounded up to the microsecond."""
    return timedelta(microseconds=-(-60_000_000 // limit_rpm))


def next_arrival(arrival: datetime | None, *, limit_rpm: int, now: datetime) -> datetime:
    """The theoretical arrival time after one more request now (GCRA, ITU-T I.371).

    A key that rested may send a whole minute's allowance at once; it then grows back evenly.
    """
    interval = request_interval(limit_rpm)
    if arrival is None or arrival < now:
        return now + interval
    return _believable(arrival, limit_rpm=limit_rpm, now=now) + interval


def wait_for(arrival: datetime, *, limit_rpm: int, now: datetime) -> timedelta:
    """How long until a request with this theoretical arrival time is within the limit; zero when it is."""
    return max(arrival - now - limit_rpm * request_interval(limit_rpm), timedelta(0))


def requests_left(arrival: datetime | None, *, limit_rpm: int, now: datetime) -> int:
    """How many requests would be let through at once now."""
    if arrival is None or arrival <= now:
        return limit_rpm
    interval = request_interval(limit_rpm)
    ahead = _believable(arrival, limit_rpm=limit_rpm, now=now) - now
    return max((limit_rpm * interval - ahead) // interval, 0)


def _believable(arrival: datetime, *, limit_rpm: int, now: datetime) -> datetime:
    """The arrival, unless only a clock that was stepped back explains it; then one that lets one request through.

    An arrival is never further ahead than the whole allowance when it is stored. Clocks of hosts differ, so that a
    little more is believed; from a minute more on the key would wait for as long as the clock was stepped back. A
    refusal stores nothing, so the request that heals the key has to be let through.
    """
    allowance = limit_rpm * request_interval(limit_rpm)
    if arrival > now + allowance + MINUTE:
        return now + allowance - request_interval(limit_rpm)
    return arrival
