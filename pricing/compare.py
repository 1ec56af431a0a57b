"""How far prices move from one program to the next.

A misplaced decimal point, or a price per million written as one per thousand, shows as a factor: of a unit price, or
of what the same usage costs. Both are looked at, because a charge can be renamed, and a meter can change its unit.
"""

from collections.abc import Collection, Iterable, Iterator
from decimal import Decimal
from fractions import Fraction
from itertools import chain

import msgspec

from ledger.money import MICROCENTS_PER_UNIT
from pricing.errors import UsageError
from pricing.language.definition import Cases, Charge, Flat, Graduated, Volume
from pricing.language.format import format_expression
from pricing.language.program import Program
from pricing.language.rounding import exact_text
from pricing.language.usage import Usage
from pricing.samples import sample_usages


class Jump(msgspec.Struct, frozen=True):
    """How far one price goes from the program before to the one after.

    The prices are exact, in the major unit of the currency, of one unit of the charge's meter; or of a whole usage,
    which ``charge`` then spells out.
    """

    charge: str  # with its tier or case: "input, up to 32000", "output, mode == 'thinking'"
    before: Fraction
    after: Fraction

    @property
    def factor(self) -> Fraction | None:
        """After ÷ before. None when what was free is no longer."""
        if not self.before:
            return None if self.after else Fraction(1)
        return Fraction(self.after, self.before)

    def is_beyond(self, limit: Decimal) -> bool:
        """Whether the price became more than ``limit`` times as high or as low, or free, or is free no longer."""
        least, most = sorted((self.before, self.after))
        return most > least * Fraction(limit)


def unit_price_jumps(before: Program, after: Program) -> list[Jump]:
    """Each unit price that both programs have, in the order of the program after; charges match by their names.

    A flat price stands for each tier and each case; cases match by their conditions, tiers by where they lie.
    """
    old = {charge.name: charge for charge in before.charges}
    pairs = [(old[charge.name], charge) for charge in after.charges if charge.name in old]
    return list(chain.from_iterable(_jumps_of_charge(*pair) for pair in pairs))


def whole_price_jumps(before: Program, after: Program, limit: Decimal) -> list[Jump]:
    """Of the sample usages whose whole price became more than ``limit`` times as high or as low, the one that rose
    and the one that fell the furthest.

    Amounts are compared as they stand: of programs in two currencies the numbers say little.
    """
    moved = [jump for jump in _jumps_of_samples(before, after) if jump.is_beyond(limit)]
    rises = [jump for jump in moved if jump.after > jump.before]
    falls = [jump for jump in moved if jump.after < jump.before]
    return [max(among, key=_proportion) for among in (rises, falls) if among]


def jumps(before: Program, after: Program, limit: Decimal) -> list[Jump]:
    """Every unit price that became more than ``limit`` times as high or as low, and then ``whole_price_jumps``."""
    unit_prices = [jump for jump in unit_price_jumps(before, after) if jump.is_beyond(limit)]
    return unit_prices + whole_price_jumps(before, after, limit)


def _proportion(jump: Jump) -> tuple[bool, Fraction]:
    """Larger for what moves further; from or to nothing is the furthest."""
    least, most = sorted((jump.before, jump.after))
    return (False, Fraction(most, least)) if least else (True, Fraction(0))


def _jumps_of_charge(before: Charge, after: Charge) -> Iterator[Jump]:
    match before.rate, after.rate:
        case Cases() | Flat(), Cases():
            old = _prices_of_cases(before)
            for label, price in _prices_of_cases(after).items():
                if label in old or isinstance(before.rate, Flat):
                    yield _jump(after.name, label, old.get(label, before.microcents_each()[0]), price)
        case Cases(), Flat():
            for label, price in _prices_of_cases(before).items():
                yield _jump(after.name, label, price, after.microcents_each()[0])
        case Flat() | Graduated() | Volume(), Flat() | Graduated() | Volume():
            yield from _jumps_of_tiers(before, after)
        # Between cases and tiers nothing stands for anything: what the samples cost has to tell.


def _prices_of_cases(charge: Charge) -> dict[str, Fraction]:
    if not isinstance(charge.rate, Cases):
        return {}
    labels = (format_expression(case.when) if case.when is not None else "otherwise" for case in charge.rate.cases)
    return dict(zip(labels, charge.microcents_each(), strict=True))


def _jumps_of_tiers(before: Charge, after: Charge) -> Iterator[Jump]:
    """One for each stretch on which neither price changes."""
    below = Decimal(0)
    for end in sorted({*_ends(before), *_ends(after)}):
        old, new = (_price_up_to(charge, end) for charge in (before, after))
        if old is not None and new is not None:
            yield _jump(after.name, f"up to {exact_text(Fraction(end))}", old, new)
        below = end
    old, new = (_price_up_to(charge, None) for charge in (before, after))
    if old is not None and new is not None:
        yield _jump(after.name, f"above {exact_text(Fraction(below))}" if below else "", old, new)


def _ends(charge: Charge) -> list[Decimal]:
    tiers = charge.rate.tiers if isinstance(charge.rate, Graduated | Volume) else ()
    return [tier.up_to for tier in tiers if tier.up_to is not None]


def _price_up_to(charge: Charge, end: Decimal | None) -> Fraction | None:
    """The price of what lies just below the end; without one, above all ends. None where no tier reaches."""
    tiers = charge.rate.tiers if isinstance(charge.rate, Graduated | Volume) else ()
    for tier, each in zip(tiers, charge.microcents_each(), strict=False):
        if tier.up_to is None or (end is not None and end <= tier.up_to):
            return each
    return None if tiers else charge.microcents_each()[0]


def _jump(name: str, label: str, before: Fraction, after: Fraction) -> Jump:
    return Jump(f"{name}, {label}" if label else name, _in_units(before), _in_units(after))


def _jumps_of_samples(before: Program, after: Program) -> Iterator[Jump]:
    # The smaller quantum: a coarser one is a change of price itself.
    rounded_away = min(program.rounding.quantum_microcents for program in (before, after))
    left_to_defaults = before.definition.defaults.keys() & after.definition.defaults.keys()
    for usage in _with_and_without(sample_usages(before.definition, after.definition), left_to_defaults):
        try:
            old, new = (program.price(usage).total_microcents for program in (before, after))
        except UsageError:
            continue
        # A difference of one quantum can come from rounding alone.
        if abs(new - old) > rounded_away:
            yield Jump(f"whole price of {_spelt_out(usage)}", _in_units(Fraction(old)), _in_units(Fraction(new)))


def _with_and_without(usages: Iterable[Usage], keys: Collection[str]) -> Iterator[Usage]:
    """Each usage, and once more without these keys: most requests leave it to the program what they are."""
    for usage in usages:
        yield usage
        if keys:
            yield {key: value for key, value in usage.items() if key not in keys}


def _in_units(microcents: Fraction) -> Fraction:
    """In the major unit of the currency."""
    return Fraction(microcents, MICROCENTS_PER_UNIT)


def _spelt_out(usage: Usage) -> str:
    """The keys that are not zero or false, as Python's keyword arguments are written."""
    return ", ".join(f"{key}={value!r}" for key, value in usage.items() if value) or "nothing"
