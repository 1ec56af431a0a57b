"""Limits over time: a month is a pure function of a moment, and a rate limit lets exactly its allowance through."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.limits import month_end, month_of, next_arrival, request_interval, requests_left, wait_for
from tests import strategies

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)

limits = st.integers(min_value=1, max_value=20)
pauses = st.one_of(
    st.just(timedelta(0)),
    st.integers(min_value=0, max_value=3_000_000).map(lambda us: timedelta(microseconds=us)),
    st.integers(min_value=0, max_value=130).map(lambda s: timedelta(seconds=s)),
)


class Gate:
    """One key under its rate limit: keeps what the ledger keeps, which is the arrival of what was let through."""

    def __init__(self, limit_rpm: int) -> None:
        self.limit_rpm = limit_rpm
        self.arrival: datetime | None = None

    def lets_through(self, now: datetime) -> bool:
        arrival = next_arrival(self.arrival, limit_rpm=self.limit_rpm, now=now)
        if wait_for(arrival, limit_rpm=self.limit_rpm, now=now):
            return False
        self.arrival = arrival
        return True

    def burst(self, now: datetime) -> int:
        """How many are let through at once."""
        count = 0
        while self.lets_through(now):
            count += 1
        return count


@pytest.mark.money_bug(44)
@pytest.mark.parametrize(
    ("moment", "month", "end"),
    [
        ("2026-11-30T23:59:59.999999+00:00", "2026-11", "2026-12-01T00:00:00+00:00"),
        ("2026-12-01T00:00:00+00:00", "2026-12", "2027-01-01T00:00:00+00:00"),
        ("2027-12-31T23:59:59+00:00", "2027-12", "2028-01-01T00:00:00+00:00"),
        ("2028-02-29T12:00:00+00:00", "2028-02", "2028-03-01T00:00:00+00:00"),
        ("2027-02-28T23:59:59+00:00", "2027-02", "2027-03-01T00:00:00+00:00"),
        ("2028-01-31T00:00:00+00:00", "2028-01", "2028-02-01T00:00:00+00:00"),
        ("2027-01-01T04:59:59+05:00", "2026-12", "2027-01-01T00:00:00+00:00"),
        ("2026-12-31T19:00:00-05:00", "2027-01", "2027-02-01T00:00:00+00:00"),
    ],
)
def test_the_month_of_a_moment_is_the_calendar_month_in_utc(moment: str, month: str, end: str) -> None:
    at = datetime.fromisoformat(moment)

    assert month == month_of(at)
    assert datetime.fromisoformat(end) == month_end(at)


@given(strategies.moments, st.integers(-14, 14))
def test_a_month_ends_at_the_first_moment_of_the_next_in_every_zone(at: datetime, hours: int) -> None:
    abroad = at.astimezone(timezone(timedelta(hours=hours)))

    end = month_end(abroad)

    assert month_of(at) == month_of(abroad) == month_of(end - MICROSECOND)
    assert month_of(at) < month_of(end)
    assert at < end


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 59, 60, 61, 999, 1_000])
def test_a_rested_key_may_send_exactly_its_minutes_allowance_at_once(limit: int) -> None:
    gate = Gate(limit)

    assert limit == gate.burst(NOON)


@given(st.integers(min_value=1, max_value=1_000_000))
def test_the_whole_allowance_never_grows_back_in_less_than_a_minute(limit: int) -> None:
    regrown = limit * request_interval(limit)

    assert MINUTE <= regrown < MINUTE + limit * MICROSECOND


@given(limits, st.lists(pauses, max_size=25))
def test_in_no_window_more_passes_than_the_allowance_and_what_grew_back(limit: int, steps: list[timedelta]) -> None:
    gate, now, passed = Gate(limit), NOON, []
    for step in steps:
        now += step
        passed += [now] * gate.burst(now)

    for first in range(len(passed)):
        for last in range(first, len(passed)):
            window = passed[last] - passed[first]
            assert last - first + 1 <= limit + window // request_interval(limit)


@given(limits, st.lists(pauses, max_size=30))
def test_nobody_waits_longer_than_until_one_request_has_grown_back(limit: int, steps: list[timedelta]) -> None:
    gate, now = Gate(limit), NOON
    for step in steps:
        now += step
        gate.burst(now)
        now += request_interval(limit)
        assert gate.lets_through(now)


@given(limits, st.lists(pauses, max_size=20), st.integers(0, 25))
def test_a_refused_request_is_told_the_first_moment_that_fits(limit: int, steps: list[timedelta], sent: int) -> None:
    gate, now = Gate(limit), NOON
    for step in steps:
        now += step
        for _ in range(sent):
            gate.lets_through(now)
    arrival = next_arrival(gate.arrival, limit_rpm=limit, now=now)

    wait = wait_for(arrival, limit_rpm=limit, now=now)

    if wait:
        assert not gate.lets_through(now + wait - MICROSECOND)
    assert gate.lets_through(now + wait)


@given(
    limits,
    st.lists(pauses, max_size=20),
    st.integers(0, 25),
    st.sampled_from([timedelta(0), timedelta(seconds=30), timedelta(hours=1)]),
)
def test_requests_left_are_exactly_those_that_would_pass(
    limit: int, steps: list[timedelta], sent: int, stepped_back: timedelta
) -> None:
    gate, now = Gate(limit), NOON
    for step in steps:
        now += step
        for _ in range(sent):
            gate.lets_through(now)
    now -= stepped_back

    left = requests_left(gate.arrival, limit_rpm=limit, now=now)

    assert gate.burst(now) == left


@pytest.mark.parametrize("limit", [1, 2, 7, 60, 1_000])
@pytest.mark.parametrize("back", [timedelta(minutes=2), timedelta(hours=1), timedelta(days=400)])
def test_a_clock_stepped_far_back_lets_one_request_through_and_then_heals_within_a_minute(
    limit: int, back: timedelta
) -> None:
    gate = Gate(limit)
    gate.burst(NOON)
    now = NOON - back

    at_once = gate.burst(now)
    one_interval_later = gate.burst(now + request_interval(limit))
    rested = gate.burst(now + 3 * MINUTE)

    assert (1, 1, limit) == (at_once, one_interval_later, rested)


@given(limits, st.integers(min_value=0, max_value=7_200), st.integers(1, 25))
def test_after_any_step_back_the_key_is_served_again_within_two_minutes(limit: int, back_s: int, sent: int) -> None:
    gate = Gate(limit)
    for _ in range(sent):
        gate.lets_through(NOON)
    now = NOON - timedelta(seconds=back_s)

    gate.burst(now)

    assert gate.lets_through(now + 2 * MINUTE)


@given(limits, st.integers(min_value=0, max_value=60_000))
def test_hosts_whose_clocks_differ_by_less_than_a_minute_share_one_allowance(limit: int, skew_ms: int) -> None:
    gate = Gate(limit)

    ahead = gate.burst(NOON + timedelta(milliseconds=skew_ms))
    behind = gate.burst(NOON)

    assert limit == ahead + behind
