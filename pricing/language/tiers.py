"""Tiers in whole numbers: what exact prices and bounds ask of them while they run.

A ladder is laid out when the program is parsed. Positions on it count whole steps of the charge's quantity (or of
``tier_by``), a weight is what one step of the quantity adds to the program's scaled total. So all arithmetic
is on integers; fractions work too, where a usage is not whole.
"""

from bisect import bisect_left
from fractions import Fraction
from typing import Self

import msgspec

from pricing.language.rounding import Exact


class Ladder(msgspec.Struct, frozen=True):
    limits: tuple[int, ...]  # the upper ends of the tiers, included; one less than weights if the last is endless
    weights: tuple[int, ...]
    #: The line of each tier at zero: intercept + weight × position = the graduated amount up to the position.
    intercepts: tuple[int, ...]

    @classmethod
    def of(cls, limits: tuple[int, ...], weights: tuple[int, ...]) -> Self:
        intercepts = [0]
        for limit, weight, following in zip(limits, weights, weights[1:], strict=False):
            intercepts.append(intercepts[-1] + limit * (weight - following))
        return cls(limits, weights, tuple(intercepts))

    def tier(self, position: Exact | Fraction) -> int:
        """The number of the tier, from 0, that the position lies in; beyond the last, how many tiers there are."""
        return bisect_left(self.limits, position)

    def is_beyond(self, position: Exact) -> bool:
        """Whether no tier reaches the position: it has no price."""
        return self.tier(position) == len(self.weights)

    def graduated(self, start: Exact, end: Exact) -> Exact:
        """The amount for the steps from ``start`` to ``end``, each at the price of its tier; none is beyond."""
        return self._up_to(end) - self._up_to(start)

    def graduated_at_most(self, start: tuple[Exact, Exact], quantity: tuple[Exact, Exact]) -> Exact | None:
        """The most that a quantity can cost when it begins between the two starts. None if it must end beyond."""
        if self.is_beyond(start[0] + quantity[0]):
            return None
        end = start[1] + quantity[1]
        if self.is_beyond(end):
            end = self.limits[-1]
        if start[0] == start[1]:
            return self.graduated(start[0], end)
        steepest = max(self.weights[self.tier(start[0]) : self.tier(end) + 1])
        return steepest * min(quantity[1], end - start[0])

    def volume_at_most(self, low: Exact, high: Exact) -> Exact | None:
        """The most that a quantity between the two can cost when the tier it lies in prices all of it.

        More can cost less, so each tier in reach is tried at its most: at its end or at ``high``. None if the
        quantity must lie beyond.
        """
        reached = range(self.tier(low), min(self.tier(high) + 1, len(self.weights)))
        return max((self._end(tier, high) * self.weights[tier] for tier in reached), default=None)

    def highest_weight(self, low: Exact, high: Exact) -> int | None:
        """The highest weight between two positions; None when both lie beyond."""
        return max(self.weights[self.tier(low) : self.tier(high) + 1], default=None)

    def _up_to(self, position: Exact) -> Exact:
        tier = self.tier(position)
        return self.intercepts[tier] + self.weights[tier] * position

    def _end(self, tier: int, high: Exact) -> Exact:
        return min(self.limits[tier], high) if tier < len(self.limits) else high


def highest_weight_of_cases(
    weights: tuple[int, ...], possible: tuple[bool, ...], certain: tuple[bool, ...]
) -> int | None:
    """The highest weight of the cases that may be the first to fit; None when none can fit."""
    reached = []
    for weight, can, must in zip(weights, possible, certain, strict=True):
        if can:
            reached.append(weight)
        if must:
            break
    return max(reached, default=None)
