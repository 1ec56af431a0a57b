"""Hours at which a list is cheaper, as a condition on ``hour`` and ``weekday``, which the gate tells in UTC.

A window that does not begin and end with an hour needs ``minute`` (of the hour, 0 to 59) too.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_DAY = 24 * 60

#: Hours by which the calendars that lists name are ahead of UTC, all year round.
_AHEAD = {"UTC": 0, "Asia/Shanghai": 8}


def off_peak_condition(block: Mapping[str, Any] | None) -> str:
    """The condition under which LiteLLM's ``off_peak_pricing`` holds; empty if there is none, or a calendar that we
    do not know."""
    if not block or not knows_calendar(block):
        return ""
    windows = [{"hours_utc": block["hours_utc"]}] if "hours_utc" in block else []
    ahead = _AHEAD[block.get("weekday_timezone", "UTC")]
    return any_of([_of_window(window, ahead) for window in (*windows, *block.get("windows", ()))])


def knows_calendar(block: Mapping[str, Any]) -> bool:
    return block.get("weekday_timezone", "UTC") in _AHEAD


def daily_hours(start: int, end: int) -> str:
    """From minute ``start`` of each day (UTC, included) to ``end``, over midnight if that is sooner; empty for the
    whole day."""
    clock, unit = ("hour", 60) if start % 60 == end % 60 == 0 else ("hour * 60 + minute", 1)
    from_start, to_end = f"{clock} >= {start // unit}", f"{clock} < {end // unit}"
    if start == end:
        return ""
    if start == 0 or end in (0, _DAY):
        return to_end if start == 0 else from_start
    return f"{from_start} {'and' if start < end else 'or'} {to_end}"


def any_of(conditions: Sequence[str]) -> str:
    """A condition that can stand among others joined by ``and``."""
    return f"({' or '.join(f'({each})' for each in conditions)})"


def _of_window(window: Mapping[str, Any], ahead: int) -> str:
    hours = window["hours_utc"]
    spans = [daily_hours(*_minutes(each)) for each in ([hours] if isinstance(hours, str) else hours)]
    days = window.get("weekdays")
    parts = [] if days is None else [_of_weekdays(days, ahead)]
    parts += [any_of(spans)] if all(spans) else []
    return " and ".join(parts) or "hour >= 0"


def _of_weekdays(days: Sequence[int], ahead: int) -> str:
    """The days of a calendar that is some hours ahead: the last of them are the day before, in UTC."""
    if not ahead:
        return _one_of(days)
    before = [day - 1 or 7 for day in days]
    return any_of([f"hour < {24 - ahead} and {_one_of(days)}", f"hour >= {24 - ahead} and {_one_of(before)}"])


def _one_of(days: Sequence[int]) -> str:
    first, last = min(days), max(days)
    if len(days) < last - first + 1:
        return any_of([f"weekday == {day}" for day in sorted(days)])
    ends = [f"weekday >= {first}"] if first > 1 else []
    ends += [f"weekday <= {last}"] if last < 7 or not ends else []
    return " and ".join(ends)


def _minutes(span: str) -> Iterator[int]:
    for clock in span.split("-"):
        hours, minutes = clock.strip().split(":")
        yield int(hours) * 60 + int(minutes)
