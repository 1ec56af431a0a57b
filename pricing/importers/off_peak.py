"""Hours at which a list is cheaper, as a condition on the time of the request.

A program cannot read a clock: the time is in the usage, as ``utc_minute`` (of the day, 0 to 1439) and ``weekday``
(1 = Monday, on the calendar that the list names).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_WEEK = range(1, 8)


def off_peak_condition(block: Mapping[str, Any] | None) -> str:
    """The condition under which LiteLLM's ``off_peak_pricing`` holds; empty if there is none."""
    if not block:
        return ""
    windows = [{"hours_utc": block["hours_utc"]}] if "hours_utc" in block else []
    return any_of(list(map(_of_window, (*windows, *block.get("windows", ())))))


def daily_hours(start: int, end: int) -> str:
    """From minute ``start`` of each day (UTC, included) to ``end``, over midnight if that is sooner."""
    if start == end:
        return ""
    from_start, to_end = f"utc_minute >= {start}", f"utc_minute < {end}"
    if end == 0:
        return from_start
    if start == 0:
        return to_end
    return f"{from_start} {'and' if start < end else 'or'} {to_end}"


def any_of(conditions: Sequence[str]) -> str:
    """A condition that can stand among others joined by ``and``."""
    return f"({' or '.join(f'({each})' for each in conditions)})"


def _of_window(window: Mapping[str, Any]) -> str:
    hours = window["hours_utc"]
    spans = [daily_hours(*_minutes(each)) for each in ([hours] if isinstance(hours, str) else hours)]
    days = window.get("weekdays")
    weekdays = [] if days is None else [_of_weekdays(sorted(days))]
    return " and ".join([*weekdays, *([any_of(spans)] if all(spans) else [])]) or "utc_minute >= 0"


def _of_weekdays(days: Sequence[int]) -> str:
    if not days or not all(day in _WEEK for day in days):
        raise ValueError(f"weekdays are numbers from 1 to 7, not {days}")
    first, last = days[0], days[-1]
    if len(days) < last - first + 1:
        return any_of([f"weekday == {day}" for day in days])
    return f"weekday >= {first} and weekday <= {last}"


def _minutes(span: str) -> Iterator[int]:
    for clock in span.split("-"):
        hours, minutes = clock.strip().split(":")
        yield int(hours) * 60 + int(minutes)
