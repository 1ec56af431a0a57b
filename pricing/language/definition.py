"""What a price program says, as a typed tree: the one source of both its interpretations.

Prices, minimums and maximums are in the major unit of the program's currency (dollars, yuan), exact decimals.
"""

from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from itertools import chain
from typing import Literal, TypeAlias

import msgspec

from ledger.money import MICROCENTS_PER_UNIT
from pricing.language.expressions import (
    ZERO,
    Arithmetic,
    Condition,
    Constant,
    Extreme,
    Kind,
    Node,
    Number,
    TextIs,
    keys_read,
    walk,
)
from pricing.language.rounding import Rounding


class Flat(msgspec.Struct, frozen=True):
    """One price."""

    price: Decimal


class Tier(msgspec.Struct, frozen=True):
    up_to: Decimal | None  # inclusive; None = without end, in the last tier only
    price: Decimal


class Graduated(msgspec.Struct, frozen=True):
    """Each part of the quantity has the price of the tier it lies in, as with income tax."""

    tiers: tuple[Tier, ...]
    after: Number  # how much of the tiers is used up already, in units of the meter


class Volume(msgspec.Struct, frozen=True):
    """The whole quantity has the price of one tier: the one that ``by`` lies in, or else the quantity itself."""

    tiers: tuple[Tier, ...]
    by: Number | None


class Case(msgspec.Struct, frozen=True):
    when: Condition | None  # None = in every case not named before
    price: Decimal


class Cases(msgspec.Struct, frozen=True):
    """The price of the first case that fits. A usage that fits none is refused."""

    cases: tuple[Case, ...]


Rate: TypeAlias = Flat | Graduated | Volume | Cases


class Charge(msgspec.Struct, frozen=True):
    """``meter`` units at ``rate`` for every ``per`` of them, if ``when`` holds."""

    name: str
    meter: Number
    rate: Rate
    per: Decimal
    when: Condition | None
    free: Decimal  # units of the meter that each request has for nothing

    def prices(self) -> tuple[Decimal, ...]:
        match self.rate:
            case Flat(price):
                return (price,)
            case Graduated(tiers) | Volume(tiers):
                return tuple(tier.price for tier in tiers)
            case Cases(cases):
                return tuple(case.price for case in cases)

    def quantity(self) -> Number:
        """What is paid for: the meter less the free allowance, never below zero."""
        if not self.free:
            return self.meter
        return Extreme("max", (Arithmetic("-", self.meter, Constant(self.free)), ZERO))

    def microcents_each(self) -> tuple[Fraction, ...]:
        """The prices in microcents for one unit of the meter, exact."""
        return tuple(Fraction(price) * MICROCENTS_PER_UNIT / Fraction(self.per) for price in self.prices())

    def expressions(self) -> Iterator[Node]:
        yield self.meter
        if self.when is not None:
            yield self.when
        match self.rate:
            case Graduated(after=after):
                yield after
            case Volume(by=by) if by is not None:
                yield by
            case Cases(cases):
                yield from (case.when for case in cases if case.when is not None)


class Adjustment(msgspec.Struct, frozen=True):
    """A change to all that stands above it: times a factor, at least a minimum, or at most a maximum."""

    name: str
    kind: Literal["factor", "minimum", "maximum"]
    value: Decimal
    when: Condition | None


class Definition(msgspec.Struct, frozen=True):
    id: str
    currency: str  # ISO 4217
    description: str
    defaults: dict[str, Decimal | str | bool]  # of usage keys that may be missing
    values: dict[str, tuple[str, ...]]  # the texts that a usage key may have; any other is refused
    not_charged: tuple[str, ...]  # meters that are known and deliberately free, or part of another meter
    charges: tuple[Charge, ...]
    adjustments: tuple[Adjustment, ...]
    rounding: Rounding

    def expressions(self) -> Iterator[Node]:
        for charge in self.charges:
            yield from charge.expressions()
        yield from (each.when for each in self.adjustments if each.when is not None)

    def texts_named(self, key: str) -> tuple[str, ...]:
        """The texts that the program compares the key with, in the order it names them."""
        parts = chain.from_iterable(map(walk, self.expressions()))
        return tuple(dict.fromkeys(part.text for part in parts if isinstance(part, TextIs) and part.name == key))

    def keys(self) -> dict[str, Kind]:
        """Every usage key the program reads, in the order it names them."""
        keys: dict[str, Kind] = {}
        for expression in self.expressions():
            keys.update(keys_read(expression))
        return keys
