"""When a failed delivery is tried again."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notices.schedule import JITTER, LONGEST_PAUSE, PAUSES, asked_pause, next_try

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)

fractions = st.floats(min_value=0, max_value=1, exclude_max=True)
durations = st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=365))


@given(failures=st.integers(min_value=1, max_value=30), asked=st.none() | durations, fraction=fractions)
def test_a_pause_is_that_of_the_schedule_or_what_is_asked_for_within_bounds(
    failures: int, asked: timedelta | None, fraction: float
) -> None:
    again = next_try(failures, NOW, asked=asked, spread=lambda: fraction)

    if failures > len(PAUSES):
        assert again is None
        return
    assert again is not None
    scheduled, pause = PAUSES[failures - 1], again - NOW
    assert scheduled <= pause <= max(scheduled * (1 + JITTER), min(asked or timedelta(0), LONGEST_PAUSE))
    assert pause >= min(asked or timedelta(0), LONGEST_PAUSE)


def test_what_failed_together_does_not_come_back_together() -> None:
    assert len({next_try(1, NOW, asked=None) for _ in range(20)}) > 1


@pytest.mark.parametrize(
    ("header", "pause"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("0", timedelta(0)),
        ("120", timedelta(seconds=120)),
        ("9" * 400, timedelta(seconds=999_999_999)),
        ("Sat, 21 Nov 2026 12:00:30 GMT", timedelta(seconds=30)),
        ("Sat, 21 Nov 2026 12:00:30 -0000", timedelta(seconds=30)),
        ("Sat, 21 Nov 2026 11:00:00 GMT", timedelta(0)),
        ("Sat, 99 Nov 2026 12:00:30 GMT", None),
        (f"Sat, 21 Nov {'9' * 20} 12:00:30 GMT", None),
        (f"Sat, 21 Nov 2026 12:00:30 +{'9' * 20}", None),
    ],
)
def test_a_receiver_asks_in_seconds_or_by_a_date(header: str | None, pause: timedelta | None) -> None:
    assert asked_pause(header, NOW) == pause
