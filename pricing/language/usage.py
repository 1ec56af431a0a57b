"""What was used, or what will be used at most; and the checks that each value passes before it is priced.

A usage has one value for each key. A box says what is known of a usage before it happened: for each key a plain
value (known), a ``Span`` (a number between two ends), or a set (one of these texts, or true or false).
"""

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from itertools import product
from math import prod
from typing import Any, TypeAlias

import msgspec

from ledger.money import Microcents
from pricing.errors import UsageError
from pricing.language.rounding import Exact

#: The largest number of a usage. No meter counts that far; it bounds the digits that arithmetic may have to carry.
LARGEST = 10**30

#: Decimals of a usage number: the same bound on the other side of the point.
MAX_DECIMALS = 30

#: Ways to settle the open texts and flags of one box. Each is bounded by itself, so this bounds the time.
MAX_CHOICES = 1024


class Span(msgspec.Struct, frozen=True):
    """A number from ``low`` to ``high``, both included."""

    low: int | Decimal
    high: int | Decimal


Usage: TypeAlias = Mapping[str, int | Decimal | str | bool]
UsageBox: TypeAlias = Mapping[str, Span | int | Decimal | str | bool | frozenset[str] | frozenset[bool]]


def number(key: str, value: object) -> Exact:
    """The value as an exact number ≥ 0. Raises UsageError for anything else, a float included."""
    exact = _exact(key, value)
    if exact < 0:
        raise UsageError(key, "is negative")
    return exact


def span(key: str, value: object) -> tuple[Exact, Exact]:
    """The lowest and the highest number of a box's value; what is below zero in it is cut off, for a usage there
    is refused. Raises UsageError for what is no number or is empty."""
    if not isinstance(value, Span):
        known = number(key, value)
        return known, known
    low, high = _exact(key, value.low), _exact(key, value.high)
    if low > high:
        raise UsageError(key, "has its low end above its high end")
    if high < 0:
        raise UsageError(key, "is negative")
    return max(low, 0), high


def text(key: str, value: object, allowed: Iterable[str] | None) -> str:
    """The value as a text, one of ``allowed`` unless that is None. Raises UsageError."""
    if not isinstance(value, str):
        raise UsageError(key, f"a text is needed, not {_described(value)}")
    if allowed is not None and value not in allowed:
        raise UsageError(key, f"{value[:60]!r} has no price; priced are {', '.join(map(repr, allowed))}")
    return str(value)


def flag(key: str, value: object) -> bool:
    """The value if it is true or false. Raises UsageError."""
    if not isinstance(value, bool):
        raise UsageError(key, f"true or false is needed, not {_described(value)}")
    return value


def missing(usage: Mapping[str, Any], required: Iterable[str]) -> UsageError:
    """The error that names the first required key which the usage has not."""
    key = next((key for key in required if key not in usage), "usage")
    return UsageError(key, "is missing, and the program has no default for it")


def worst_choice(
    bound: Callable[[UsageBox], Microcents], box: UsageBox, settles: Mapping[str, tuple[str, ...] | None]
) -> Microcents:
    """The highest bound over all ways to settle the open texts and flags of the box.

    ``settles`` names, for each key of a text, the texts that the program tells apart; None is a flag's. Ways that
    are refused cost nothing; raises UsageError when all are, or when there are too many.
    """
    choices = {
        key: _choices(key, value, settles[key]) for key in settles if isinstance(value := box.get(key), frozenset)
    }
    if prod(map(len, choices.values())) > MAX_CHOICES:
        raise UsageError(next(iter(choices)), f"leaves more than {MAX_CHOICES} possibilities to be bounded")
    bounds: list[Microcents] = []
    refusal = UsageError(next(iter(choices), "usage"), "is an empty set")
    settled = dict(box)
    for combination in product(*choices.values()):
        settled.update(zip(choices, combination, strict=True))
        try:
            bounds.append(bound(settled))
        except UsageError as error:
            refusal = error
    if not bounds:
        raise refusal
    return max(bounds)


def _choices(key: str, open_value: Iterable[Any], told_apart: tuple[str, ...] | None) -> list[Any]:
    if told_apart is None:
        return [flag(key, each) for each in open_value]
    choices = []
    other = None
    for each in open_value:
        if text(key, each, None) in told_apart:
            choices.append(each)
        else:
            other = each
    # All texts that the program does not tell apart are alike to it: one stands for the rest.
    return choices if other is None else [*choices, other]


def _exact(key: str, value: object) -> Exact:
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        raise UsageError(key, f"a number is needed, not {_described(value)}")
    if isinstance(value, Decimal):
        if not value.is_finite():
            raise UsageError(key, "is not a finite number")
        if not value:
            return 0
    if value > LARGEST or value < -LARGEST:
        raise UsageError(key, "is larger than anything that can be metered")
    if isinstance(value, int):
        return int(value)
    # Looked at before the ratio is taken: that of 1E-999999999 would fill the memory.
    is_tiny = value.adjusted() < -MAX_DECIMALS
    numerator, denominator = (0, 0) if is_tiny else value.as_integer_ratio()
    if is_tiny or 10**MAX_DECIMALS % denominator:
        raise UsageError(key, f"has more than {MAX_DECIMALS} decimals")
    return numerator if denominator == 1 else value


def _described(value: object) -> str:
    if isinstance(value, str):
        return f"the text {value[:60]!r}"
    if isinstance(value, float):
        return "a float (decode numbers as int or Decimal: money is exact)"
    if isinstance(value, bool):
        return "true or false"
    return "null" if value is None else f"a value of type {type(value).__name__}"
