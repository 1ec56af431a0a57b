"""The price of one usage and its receipt: the lines that add up to it.

Pricing leaves a trace (the quantity of each charge, which price it got, which adjustments held). The lines are
made from the trace when they are asked for, so that a quote or a backtest does not pay for text it never reads.

A line's amount is how far it moves the rounded running total. The amounts therefore sum exactly to the rounded
total, with one rounding for the request, and no line is ever below zero.
"""

from collections.abc import Iterator
from fractions import Fraction
from functools import cached_property, lru_cache
from itertools import repeat
from typing import Any, TypeAlias

import msgspec

from ledger.money import MICROCENTS_PER_UNIT, Microcents
from pricing.errors import PricingError
from pricing.language.definition import Charge, Definition, Graduated
from pricing.language.plan import AdjustmentPlan, ChargePlan, Plan
from pricing.language.rounding import ROUNDERS, Exact, exact_text

#: For each charge its steps, or None where its condition does not hold, and its pick: the number of its price, or
#: for graduated tiers where it starts on the ladder. Then for each adjustment whether it holds.
Trace: TypeAlias = tuple[Any, ...]

Rational: TypeAlias = int | Fraction


class ChargeLine(msgspec.Struct, frozen=True, kw_only=True):
    """One named line of a charge, as on the receipt. ``quantity`` and ``unit_price`` are exact decimals as text."""

    name: str
    quantity: str
    unit_price: str
    amount_microcents: Microcents


class Price(msgspec.Struct, frozen=True, dict=True):
    """What one usage costs."""

    total_microcents: Microcents
    _receipt: "Receipt"
    _trace: Trace

    @cached_property
    def lines(self) -> tuple[ChargeLine, ...]:
        """One line for each charge (and graduated tier) that has a quantity; they sum exactly to the total.

        ``quantity`` × ``unit_price`` (of one unit of the meter, in the major unit of the currency, after factors)
        is the line's amount before the rounding; a maximum cuts the last lines. A minimum is a line of its own.
        """
        lines, booked = self._receipt.lines(self._trace)
        if booked != self.total_microcents:
            raise PricingError("the lines of a price do not sum to its total: a bug in the compiler of programs")
        return lines


class _Draft(msgspec.Struct):
    """A line before adjustments and rounding. ``amount`` is scaled like the total."""

    name: str
    quantity: str
    each: "_UnitPrice | None"  # None = quantity is 1, and its price is the amount
    amount: Rational


class _UnitPrice(msgspec.Struct, frozen=True, eq=False):
    name: str  # of the line: the charge, and for graduated tiers the tier
    exact: Fraction  # in the major unit of the currency
    text: str


#: Numerator and denominator of all factors together, not reduced.
_Factor: TypeAlias = tuple[int, int]
_NO_FACTOR: _Factor = (1, 1)


@lru_cache(maxsize=4096)
def _after_factor(unit_price: _UnitPrice, factor: _Factor) -> str:
    """The text of the unit price times the factor. Kept, because a program has few of them and they cost more to
    write than everything else of a line."""
    return exact_text(unit_price.exact * Fraction(*factor))


class Receipt:
    """Makes the lines of one program's prices from their traces."""

    def __init__(self, definition: Definition, plan: Plan) -> None:
        self._charges = [(planned, _unit_prices(planned.charge)) for planned in plan.charges]
        self._adjustments = plan.adjustments
        self._denominator = plan.denominator
        self._quantum = definition.rounding.quantum_microcents
        self._round = ROUNDERS[definition.rounding.mode]

    def lines(self, trace: Trace) -> tuple[tuple[ChargeLine, ...], int]:
        """The lines, and what they sum to."""
        drafts = self._charged(trace)
        factor = _NO_FACTOR
        for planned, holds in zip(self._adjustments, trace[2 * len(self._charges) :], strict=True):
            _adjust(drafts, planned, holds)
            if holds:
                factor = (factor[0] * planned.numerator, factor[1] * planned.denominator)
        return self._rounded(drafts, factor)

    def _charged(self, trace: Trace) -> list[_Draft]:
        drafts: list[_Draft] = []
        slots = iter(trace)
        for (planned, unit_prices), traced, pick in zip(self._charges, slots, slots, strict=False):
            if not traced:
                continue
            steps = _rational(traced)
            if planned.is_graduated:
                drafts += _graduated(planned, unit_prices, _rational(pick), steps)
            else:
                quantity = _quantity(steps, planned.scale)
                amount = steps * planned.weights[pick]
                drafts.append(_Draft(planned.name, quantity, unit_prices[pick], amount))
        return drafts

    def _rounded(self, drafts: list[_Draft], factor: _Factor) -> tuple[tuple[ChargeLine, ...], int]:
        lines = []
        running: Rational = 0
        booked = 0
        divisor = self._denominator * self._quantum
        for draft in drafts:
            running += draft.amount
            reached = self._round(running, divisor) * self._quantum
            lines.append(
                ChargeLine(
                    name=draft.name,
                    quantity=draft.quantity,
                    unit_price=self._unit_price(draft, factor),
                    amount_microcents=Microcents(reached - booked),
                )
            )
            booked = reached
        return tuple(lines), booked

    def _unit_price(self, draft: _Draft, factor: _Factor) -> str:
        if draft.each is None:
            return exact_text(Fraction(draft.amount) / (self._denominator * MICROCENTS_PER_UNIT))
        return draft.each.text if factor == _NO_FACTOR else _after_factor(draft.each, factor)


def _unit_prices(charge: Charge) -> list[_UnitPrice]:
    names = _tier_names(charge.name, charge.rate) if isinstance(charge.rate, Graduated) else repeat(charge.name)
    each = [microcents / MICROCENTS_PER_UNIT for microcents in charge.microcents_each()]
    return [_UnitPrice(name, exact, exact_text(exact)) for name, exact in zip(names, each, strict=False)]


def _tier_names(name: str, rate: Graduated) -> Iterator[str]:
    below = "0"
    for tier in rate.tiers:
        if tier.up_to is None:
            yield f"{name}, above {below}"
        else:
            below = exact_text(Fraction(tier.up_to))
            yield f"{name}, up to {below}"


def _rational(number: Exact) -> Rational:
    """The same number in a type that never rounds: lines may be made where Decimal arithmetic does."""
    return number if type(number) is int else Fraction(number)


def _quantity(steps: Rational, scale: int) -> str:
    return str(steps) if scale == 1 and type(steps) is int else exact_text(Fraction(steps) / scale)


def _graduated(
    planned: ChargePlan, unit_prices: list[_UnitPrice], start: Rational, steps: Rational
) -> Iterator[_Draft]:
    """A line for each tier that the steps after ``start`` reach."""
    ladder = planned.laid_ladder
    position, end = start, start + steps
    for tier in range(ladder.tier(start), ladder.tier(end) + 1):
        limit = ladder.limits[tier] if tier < len(ladder.limits) else end
        reached = limit if limit < end else end
        if reached > position:
            part = reached - position
            unit_price = unit_prices[tier]
            yield _Draft(unit_price.name, _quantity(part, planned.scale), unit_price, part * ladder.weights[tier])
        position = reached


def _adjust(drafts: list[_Draft], planned: AdjustmentPlan, holds: bool) -> None:
    if planned.adjustment.kind == "factor":
        for draft in drafts:
            draft.amount *= planned.numerator if holds else planned.denominator
    elif holds and planned.adjustment.kind == "minimum":
        lacking = planned.amount - sum(draft.amount for draft in drafts)
        if lacking > 0:
            drafts.append(_Draft(planned.adjustment.name, "1", None, lacking))
    elif holds:
        room: Rational = planned.amount
        for draft in drafts:
            draft.amount = min(draft.amount, room)
            room -= draft.amount
