"""Usages that reach the parts of a program: where its prices change, and at sizes far apart.

They show what a program does, to a person or to a comparison. They prove nothing: for what holds of every usage there
is the bound.
"""

from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from itertools import chain, combinations, islice, product

from pricing.language.definition import Charge, Definition, Graduated, Volume
from pricing.language.expressions import ONE, Arithmetic, Compare, Key, Number, linear_form, walk
from pricing.language.rounding import exact_text
from pricing.language.usage import Usage

#: One token or page, a short chat, and what price lists state their prices for.
SIZES = (1, 1000, 1_000_000)

#: Values of all sample usages together: bounds the time of a comparison to a fraction of a second, whatever the
#: programs.
MAX_VALUES = 100_000


def edges(definition: Definition) -> dict[str, list[int | Decimal]]:
    """For each usage key the numbers, rising, where a tier ends or a condition turns while all other keys are 0."""
    found: dict[str, set[Fraction]] = {}
    for form in chain(_compared(definition), *map(_tier_ends, definition.charges)):
        for atom, coefficient in form.items():
            if isinstance(atom, Key) and coefficient:
                found.setdefault(atom.name, set()).add(Fraction(-form.get(ONE, Fraction(0)), coefficient))
    return {key: [number for root in sorted(roots) for number in _usage_numbers(root)] for key, roots in found.items()}


def texts_told_apart(definition: Definition, key: str) -> tuple[str, ...]:
    """The texts that the program may be given under the key; one stands for all others where any is allowed."""
    if key in definition.values:
        return definition.values[key]
    named = definition.texts_named(key)
    return (*named, "".join(["another than ", *named]))


def sample_usages(*definitions: Definition) -> Iterator[Usage]:
    """Usages with every key that one of the programs reads; ``MAX_VALUES`` values of keys at most.

    Each number stands alone at each size and edge, and beside each other number, for a part is no larger than its
    whole. Some of the usages will be refused.
    """
    kinds = {key: kind for definition in definitions for key, kind in definition.keys().items()}
    most = MAX_VALUES // max(len(kinds), 1)
    numbers = [key for key, kind in kinds.items() if kind == "number"]
    few = islice(chain(combinations(numbers, 1), combinations(numbers, 2)), most)
    groups = dict.fromkeys([*few, tuple(numbers)])
    choices = {key: _choices(definitions, key) for key in kinds if key not in numbers}
    for level, group, *chosen in islice(product(_levels(definitions), groups, *choices.values()), most):
        yield {key: level if key in group else 0 for key in numbers} | dict(zip(choices, chosen, strict=True))


def _choices(definitions: tuple[Definition, ...], key: str) -> tuple[str | bool, ...]:
    choices: dict[str | bool, None] = {}
    for definition in definitions:
        match definition.keys().get(key):
            case "text":
                choices |= dict.fromkeys(texts_told_apart(definition, key))
            case "flag":
                choices |= {False: None, True: None}
    return tuple(choices)


def _levels(definitions: tuple[Definition, ...]) -> tuple[int | Decimal, ...]:
    found = chain.from_iterable(chain.from_iterable(edges(definition).values()) for definition in definitions)
    return tuple(dict.fromkeys([*SIZES, *(edge + step for edge in found for step in (0, 1))]))


def _compared(definition: Definition) -> Iterator[dict[Number, Fraction]]:
    """For each comparison the difference of its sides, which is 0 where it turns."""
    for part in chain.from_iterable(map(walk, definition.expressions())):
        if isinstance(part, Compare):
            yield linear_form(Arithmetic("-", part.left, part.right))


def _tier_ends(charge: Charge) -> Iterator[dict[Number, Fraction]]:
    """For each end of a tier the position less the end."""
    if not isinstance(charge.rate, Graduated | Volume):
        return
    by = charge.rate.by if isinstance(charge.rate, Volume) else None
    passed = Fraction(0) if by is not None else Fraction(charge.free)
    for tier in charge.rate.tiers:
        if tier.up_to is not None:
            form = linear_form(by or charge.meter)
            yield form | {ONE: form.get(ONE, Fraction(0)) - Fraction(tier.up_to) - passed}


def _usage_numbers(root: Fraction) -> Iterator[int | Decimal]:
    """The number as a usage may have it; none if it is below zero or no decimal."""
    text = exact_text(root)
    if root >= 0 and "/" not in text:
        yield int(text) if root.denominator == 1 else Decimal(text)
