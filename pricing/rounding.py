"""The one rounding of a request, and how exact numbers are written for people.

All functions here are monotone: a larger amount is never rounded to a smaller one. That is why a bound may
be rounded like a price and still bound it, and why the rounded running totals of a receipt never step back.
"""

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Literal, TypeAlias

import msgspec

#: An exact number: an int wherever the usage is whole, and otherwise a Fraction.
Exact: TypeAlias = int | Fraction

RoundingMode: TypeAlias = Literal["up", "down", "half_up", "half_even"]

#: Gives how many whole quanta (second argument) an amount (first argument) is rounded to.
Rounder: TypeAlias = Callable[[Exact, int], int]


class Rounding(msgspec.Struct, frozen=True):
    """The exact total of a request becomes a whole multiple of ``quantum_microcents``."""

    mode: RoundingMode = "up"
    quantum_microcents: int = 1


def _up(amount: Exact, quantum: int) -> int:
    return -(-amount // quantum)


def _down(amount: Exact, quantum: int) -> int:
    return amount // quantum


def _half_up(amount: Exact, quantum: int) -> int:
    return (2 * amount + quantum) // (2 * quantum)


def _half_even(amount: Exact, quantum: int) -> int:
    quanta = amount // quantum
    above_half = 2 * (amount - quanta * quantum) - quantum
    return quanta + (above_half > 0 or (above_half == 0 and quanta % 2 == 1))


ROUNDERS: dict[RoundingMode, Rounder] = {"up": _up, "down": _down, "half_up": _half_up, "half_even": _half_even}


def exact_text(number: Exact) -> str:
    """The number as a plain decimal, exact: ``1234``, ``0.00000015``; or ``1/3`` where no decimal is exact."""
    if number.denominator == 1:
        return _digits(int(number))
    decimals = _decimals_needed(number.denominator)
    if decimals is None:
        return f"{_digits(number.numerator)}/{_digits(number.denominator)}"
    shifted = number.numerator * (10**decimals // number.denominator)
    whole, rest = divmod(abs(shifted), 10**decimals)
    return f"{'-' if shifted < 0 else ''}{_digits(whole)}.{_digits(rest):0>{decimals}}"


def _decimals_needed(denominator: int) -> int | None:
    counts = []
    for prime in (2, 5):
        count = 0
        while denominator % prime == 0:
            denominator //= prime
            count += 1
        counts.append(count)
    return max(counts) if denominator == 1 else None


def _digits(number: int) -> str:
    # Python refuses str() of more than 4,300 digits because it takes quadratic time; Decimal's does not.
    return str(number) if abs(number) < 10**4000 else format(Decimal(number), "f")
