"""The program in whole numbers: one common denominator, and what each step of each meter weighs.

The exact total of a request is a fraction of microcents. Its denominator is known when the program is parsed, so
that pricing multiplies and adds integers and divides once, at the end, where it rounds.
"""

from collections.abc import Iterator
from fractions import Fraction
from math import lcm

import msgspec

from ledger.money import MICROCENTS_PER_UNIT
from pricing.language.definition import Adjustment, Charge, Definition, Graduated, Tier, Volume
from pricing.language.expressions import Number, linear_form, scale_of
from pricing.language.tiers import Ladder

#: Digits of the common denominator. Prices per million need 8 at most; beyond this a program is a mistake, and its
#: arithmetic would no longer be cheap.
MAX_DENOMINATOR_DIGITS = 1000


class ChargePlan(msgspec.Struct, frozen=True):
    charge: Charge
    name: str
    is_graduated: bool
    quantity: Number
    scale: int  # a quantity is counted in steps of 1/scale
    weights: tuple[int, ...]  # what one step adds to the scaled total, for each price of the charge
    #: The quantity as a sum: steps = Σ multiplier × atom. See ``expressions.linear_form``.
    atoms: tuple[tuple[Number, int], ...]
    ladder: Ladder | None  # of tiers
    by_scale: int  # steps of ``tier_by``, on whose ladder the weight is looked up

    @property
    def laid_ladder(self) -> Ladder:
        """The ladder of a charge that has tiers."""
        assert self.ladder is not None
        return self.ladder


class AdjustmentPlan(msgspec.Struct, frozen=True):
    """A factor is numerator/denominator. A minimum or maximum is ``amount`` of the total as scaled at its place."""

    adjustment: Adjustment
    numerator: int = 1
    denominator: int = 1
    amount: int = 0


class Plan(msgspec.Struct, frozen=True):
    charges: tuple[ChargePlan, ...]
    adjustments: tuple[AdjustmentPlan, ...]
    denominator: int  # of the scaled total in microcents, after all adjustments


def plan_of(definition: Definition) -> Plan:
    """Lays the program out in whole numbers. Raises OverflowError past ``MAX_DENOMINATOR_DIGITS``."""
    limits = (_microcents(each) for each in definition.adjustments if each.kind != "factor")
    scales = [_scale(charge) for charge in definition.charges]
    denominator = lcm(
        *(limit.denominator for limit in limits),
        *(
            (microcents / scale).denominator
            for charge, scale in zip(definition.charges, scales, strict=True)
            for microcents in charge.microcents_each()
        ),
    )
    charges = tuple(map(_planned_charge, definition.charges, scales, [denominator] * len(scales)))
    adjustments = tuple(_planned_adjustments(definition.adjustments, denominator))
    for planned in adjustments:
        denominator *= planned.denominator
    if denominator >= 10**MAX_DENOMINATOR_DIGITS:
        raise OverflowError(f"the numbers together need more than {MAX_DENOMINATOR_DIGITS} decimals")
    return Plan(charges, adjustments, denominator)


def _scale(charge: Charge) -> int:
    """Steps fine enough for the quantity, each of its atoms and each end of its own tiers."""
    quantity = charge.quantity()
    parts = [coefficient / scale_of(atom) for atom, coefficient in linear_form(quantity).items()]
    ends = [] if isinstance(charge.rate, Volume) and charge.rate.by is not None else _ends(charge)
    after = scale_of(charge.rate.after) if isinstance(charge.rate, Graduated) else 1
    return lcm(scale_of(quantity), after, *(each.denominator for each in (*parts, *ends)))


def _planned_charge(charge: Charge, scale: int, denominator: int) -> ChargePlan:
    weights = tuple(_whole(each / scale * denominator) for each in charge.microcents_each())
    by_scale = scale
    if isinstance(charge.rate, Volume) and charge.rate.by is not None:
        by_scale = lcm(scale_of(charge.rate.by), *(end.denominator for end in _ends(charge)))
    quantity = charge.quantity()
    atoms = tuple(
        (atom, _whole(coefficient * scale / scale_of(atom))) for atom, coefficient in linear_form(quantity).items()
    )
    limits = tuple(_whole(end * by_scale) for end in _ends(charge))
    ladder = Ladder.of(limits, weights) if _tiers(charge) else None
    return ChargePlan(
        charge, charge.name, isinstance(charge.rate, Graduated), quantity, scale, weights, atoms, ladder, by_scale
    )


def _planned_adjustments(adjustments: tuple[Adjustment, ...], denominator: int) -> Iterator[AdjustmentPlan]:
    for each in adjustments:
        if each.kind == "factor":
            numerator, divisor = each.value.as_integer_ratio()
            denominator *= divisor
            yield AdjustmentPlan(each, numerator=numerator, denominator=divisor)
        else:
            yield AdjustmentPlan(each, amount=_whole(_microcents(each) * denominator))


def _microcents(limit: Adjustment) -> Fraction:
    return Fraction(limit.value) * MICROCENTS_PER_UNIT


def _tiers(charge: Charge) -> tuple[Tier, ...]:
    return charge.rate.tiers if isinstance(charge.rate, Graduated | Volume) else ()


def _ends(charge: Charge) -> list[Fraction]:
    return [Fraction(tier.up_to) for tier in _tiers(charge) if tier.up_to is not None]


def _whole(number: Fraction) -> int:
    if number.denominator != 1:
        raise ArithmeticError(f"{number} should have been whole: the plan's denominator is wrong")
    return number.numerator
