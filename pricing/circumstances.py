"""What is known of every request besides what its backend counts: when it was let in, and on which plan."""

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

#: ``minute`` (0–59), ``hour`` (0–23) and ``weekday`` (1–7, Monday first) in UTC; ``plan``, where there is one.
CIRCUMSTANCES = frozenset({"minute", "hour", "weekday", "plan"})

_NONE: dict[str, Any] = {}


def circumstances(keys: Collection[str], *, at: datetime, plan: str | None = None) -> dict[str, Any]:
    """Those of a request whose hold is placed at this moment that a program with these keys reads."""
    if CIRCUMSTANCES.isdisjoint(keys):
        return _NONE
    at = at.astimezone(UTC)
    known: dict[str, Any] = {"minute": at.minute, "hour": at.hour, "weekday": at.isoweekday()}
    if plan is not None:
        known["plan"] = plan
    return {key: value for key, value in known.items() if key in keys}
