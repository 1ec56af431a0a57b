"""Reading what a backend says was used.

The numbers become money, so that nothing is believed that cannot be: a count is a whole number that is not negative
and not absurd, and a part is not above its whole.
"""

from typing import Any

import msgspec

#: No request uses this many tokens; a larger count is a backend's fault. Also keeps sums within 64 bits.
LARGEST_COUNT = 10**12


class UsageUnreadable(Exception):
    """The backend's usage is missing or cannot be true. ``reason`` names what is wrong."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Answer(msgspec.Struct):
    usage: Any = None


_decode = msgspec.json.Decoder(_Answer).decode


def usage_object(answer: bytes) -> Any:
    """The ``usage`` of a whole JSON answer, as the backend wrote it. Raises UsageUnreadable."""
    try:
        return _decode(answer).usage
    except msgspec.DecodeError as error:
        raise UsageUnreadable(f"the answer is not a JSON object: {error}") from error


def count(usage: dict[str, Any], key: str, default: int | None = None) -> int:
    """The count under this key. Raises UsageUnreadable; an absent or null count is ``default`` unless that is None."""
    value = usage.get(key)
    if value is None and default is not None:
        return default
    if type(value) is not int or not 0 <= value <= LARGEST_COUNT:
        raise UsageUnreadable(f"{key} is {str(value)[:40]!r}")
    return value


def details(usage: dict[str, Any], group: str) -> dict[str, Any]:
    """A group of details, empty where the backend does not report it. Raises UsageUnreadable."""
    found = usage.get(group)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise UsageUnreadable(f"{group} is not an object")
    return found


def part_of(part: int, whole: int, name: str) -> int:
    """The part, if it is not above its whole. Raises UsageUnreadable: a part is never cut to fit."""
    if part > whole:
        raise UsageUnreadable(f"{name} is {part} of {whole}")
    return part
