"""Exact numbers: how they are computed with, rounded once, and written for people.

All roundings here are monotone: a larger amount is never rounded to a smaller one. That is why a bound may
be rounded like a price and still bound it, and why the rounded running totals of a receipt never step back.
"""

from collections.abc import Callable
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, Inexact, InvalidOperation, getcontext, setcontext
from fractions import Fraction
from typing import Literal, ParamSpec, TypeAlias, TypeVar

import msgspec

#: An exact number while a program runs: an int wherever the usage is whole, and otherwise a Decimal.
Exact: TypeAlias = int | Decimal

#: Decimal arithmetic that never rounds. The precision is far beyond the digits that the caps on programs and usages
#: allow; should it ever not do, it raises instead of rounding.
_NEVER_ROUNDING = Context(prec=100_000, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[Inexact, InvalidOperation])

P = ParamSpec("P")
T = TypeVar("T")

RoundingMode: TypeAlias = Literal["up", "down", "half_up", "half_even"]

#: Gives how many whole quanta (second argument) an amount (first argument) is rounded to.
Rounder: TypeAlias = Callable[[Exact | Fraction, int], int]


class Rounding(msgspec.Struct, frozen=True):
    """The exact total of a request becomes a whole multiple of ``quantum_microcents``."""

    mode: RoundingMode = "up"
    quantum_microcents: int = 1


def without_rounding(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Calls the function while all Decimal arithmetic is exact."""
    # Not ``localcontext``, which copies the context: that takes longer than pricing does.
    outside = getcontext()
    setcontext(_NEVER_ROUNDING)
    try:
        return function(*arguments, **named)
    finally:
        setcontext(outside)


def round_up(amount: Exact | Fraction, quantum: int) -> int:
    """How many whole quanta hold the amount."""
    amount, quantum = _whole(amount, quantum)
    return -(-amount // quantum)


def _down(amount: Exact | Fraction, quantum: int) -> int:
    amount, quantum = _whole(amount, quantum)
    return amount // quantum


def _half_up(amount: Exact | Fraction, quantum: int) -> int:
    amount, quantum = _whole(amount, quantum)
    return (2 * amount + quantum) // (2 * quantum)


def _half_even(amount: Exact | Fraction, quantum: int) -> int:
    amount, quantum = _whole(amount, quantum)
    quanta, rest = divmod(amount, quantum)
    above_half = 2 * rest - quantum
    return quanta + (above_half > 0 or (above_half == 0 and quanta % 2 == 1))


def _whole(amount: Exact | Fraction, quantum: int) -> tuple[int, int]:
    """The same proportion in whole numbers. (``//`` of a Decimal cuts off and does not round down.)"""
    if type(amount) is int:
        return amount, quantum
    numerator, denominator = amount.as_integer_ratio()
    return numerator, denominator * quantum


ROUNDERS: dict[RoundingMode, Rounder] = {"up": round_up, "down": _down, "half_up": _half_up, "half_even": _half_even}


def exact_text(number: int | Fraction) -> str:
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
    try:
        return str(number)
    except ValueError:
        # Python refuses to write more than 4,300 digits because it takes quadratic time; Decimal's does not.
        return format(Decimal(number), "f")
