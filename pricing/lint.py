"""What a price program may say but rarely means: prices off by a power of ten, conditions that never hold."""

from collections.abc import Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from itertools import chain, pairwise, product
from math import prod

import msgspec

from ledger.money import MICROCENTS_PER_UNIT
from ledger.state import NO_CURRENCY
from pricing.language.definition import Cases, Charge, Definition, Flat, Graduated, Volume
from pricing.language.exact import compile_price
from pricing.language.expressions import (
    ONE,
    Arithmetic,
    Compare,
    Condition,
    Key,
    Node,
    TextIs,
    keys_read,
    linear_form,
    walk,
)
from pricing.language.plan import plan_of
from pricing.language.positions import Path, Positions
from pricing.language.program import Program
from pricing.language.rounding import Rounding, exact_text
from pricing.samples import edges, texts_told_apart

#: A token or a character dearer than this was probably meant to be a thousand or a million of them; a thousand for a
#: million tokens is beyond every list price. One cheaper than the other was probably divided by a million twice.
DEAREST_EACH = Fraction(1, 1000)
CHEAPEST_EACH = Fraction(1, 10**10)

#: What the gate tells of the time; other values never come.
CALENDAR: dict[str, list[int | Decimal]] = {
    "minute": list(range(60)),
    "hour": list(range(24)),
    "weekday": list(range(1, 8)),
}

#: Usages that the conditions of one charge are tried on. Where more would be needed nothing is said.
MAX_TRIALS = 10_000


class Suspicion(msgspec.Struct, frozen=True):
    """Something that is probably not meant, and where it stands; both count from 1."""

    message: str
    line: int
    column: int


def suspicions(program: Program) -> list[Suspicion]:
    """What a second pair of eyes should look at, in the order of the text."""
    definition = program.definition
    found = chain(_prices(definition), _texts(definition), _conditions(definition))
    positions = Positions(program.text)
    told = [Suspicion(message, *positions.of_value(path)) for path, message in found]
    return sorted(told, key=lambda each: (each.line, each.column))


def _prices(definition: Definition) -> Iterator[tuple[Path, str]]:
    for index, charge in enumerate(definition.charges):
        counted = {
            atom.name: coefficient
            for atom, coefficient in linear_form(charge.meter).items()
            if isinstance(atom, Key) and atom.name.endswith(("_tokens", "characters")) and coefficient > 0
        }
        for path, microcents in zip(_paths_of_prices(index, charge), charge.microcents_each(), strict=True):
            for key, coefficient in counted.items():
                each = Fraction(microcents * coefficient, MICROCENTS_PER_UNIT)
                if each > DEAREST_EACH:
                    yield path, f"one of {key} costs {exact_text(each)} {definition.currency}: is 'per' missing?"
                elif 0 < each < CHEAPEST_EACH:
                    million = exact_text(each * 10**6)
                    yield path, f"a million {key} cost {million} {definition.currency}: is it divided twice?"


def _paths_of_prices(index: int, charge: Charge) -> Iterator[Path]:
    match charge.rate:
        case Flat():
            yield ("charges", index, "price")
        case Cases(cases):
            yield from (("charges", index, "prices", each, "price") for each in range(len(cases)))
        case Graduated(tiers) | Volume(tiers):
            yield from (("charges", index, "tiers", each, "price") for each in range(len(tiers)))


def _texts(definition: Definition) -> Iterator[tuple[Path, str]]:
    for path, condition in _whens(definition):
        for part in walk(condition):
            if isinstance(part, TextIs) and part.text not in definition.values.get(part.name, (part.text,)):
                yield path, f"{part.name} is never {part.text!r}: [values] does not allow it"


def _whens(definition: Definition) -> Iterator[tuple[Path, Condition]]:
    for index, charge in enumerate(definition.charges):
        if charge.when is not None:
            yield ("charges", index, "when"), charge.when
        for number, case in enumerate(charge.rate.cases if isinstance(charge.rate, Cases) else ()):
            if case.when is not None:
                yield ("charges", index, "prices", number, "when"), case.when
    for index, adjustment in enumerate(definition.adjustments):
        if adjustment.when is not None:
            yield ("adjustments", index, "when"), adjustment.when


def _conditions(definition: Definition) -> Iterator[tuple[Path, str]]:
    for index, charge in enumerate(definition.charges):
        yield from _conditions_of_charge(definition, index, charge)
    for index, adjustment in enumerate(definition.adjustments):
        if adjustment.when is not None and _outcomes(definition, [adjustment.when]) == {(False,)}:
            yield ("adjustments", index, "when"), f"adjustment {adjustment.name!r} never applies"


def _conditions_of_charge(definition: Definition, index: int, charge: Charge) -> Iterator[tuple[Path, str]]:
    if charge.when is not None and _outcomes(definition, [charge.when]) == {(False,)}:
        yield ("charges", index, "when"), f"charge {charge.name!r} never applies"
        return
    if not isinstance(charge.rate, Cases):
        return
    whens = [case.when for case in charge.rate.cases if case.when is not None]
    outcomes = _outcomes(definition, whens if charge.when is None else [*whens, charge.when])
    if outcomes is None:
        return
    applied = [outcome[: len(whens)] for outcome in outcomes if charge.when is None or outcome[-1]]
    chosen = {outcome.index(True) if any(outcome) else len(whens) for outcome in applied}
    for number in range(len(charge.rate.cases)):
        if number not in chosen:
            yield ("charges", index, "prices", number), f"this case of charge {charge.name!r} is never the first to fit"


def _outcomes(definition: Definition, conditions: Sequence[Condition]) -> set[tuple[bool, ...]] | None:
    """Which of the conditions can hold together; None where trying does not tell.

    It does where each comparison is of one number with constants: then nothing changes between two of its edges.
    """
    keys = {key: kind for condition in conditions for key, kind in keys_read(condition).items()}
    if not all(_is_of_one_key(part) for condition in conditions for part in walk(condition)):
        return None
    probe = _probe(conditions)
    turns = edges(probe)
    values: list[Sequence[object]] = []
    for key, kind in keys.items():
        match kind:
            case "number":
                values.append(CALENDAR.get(key) or _around(turns.get(key, [])))
            case "text":
                values.append(texts_told_apart(definition, key))
            case "flag":
                values.append((False, True))
    if prod(map(len, values)) > MAX_TRIALS:
        return None
    price = compile_price(probe, plan_of(probe))
    totals = {price(dict(zip(keys, chosen, strict=True))).total_microcents for chosen in product(*values)}  # type: ignore[arg-type]
    return {tuple(bool(total // MICROCENTS_PER_UNIT >> bit & 1) for bit in range(len(conditions))) for total in totals}


def _is_of_one_key(part: Node) -> bool:
    if not isinstance(part, Compare):
        return True
    atoms = linear_form(Arithmetic("-", part.left, part.right)).keys() - {ONE}
    return len(atoms) <= 1 and all(isinstance(atom, Key) for atom in atoms)


def _probe(conditions: Sequence[Condition]) -> Definition:
    """A program whose price, in binary, says which of the conditions hold."""
    charges = tuple(
        Charge(str(bit), ONE, Flat(Decimal(2**bit)), Decimal(1), condition, Decimal(0))
        for bit, condition in enumerate(conditions)
    )
    nothing = Charge("nothing", ONE, Flat(Decimal(0)), Decimal(1), None, Decimal(0))
    return Definition("probe", NO_CURRENCY, "", {}, {}, (), (*charges, nothing), (), Rounding())


def _around(turns: list[int | Decimal]) -> list[int | Decimal]:
    """The edges, a number between each two of them, one below and one above all."""
    ends = [Decimal(0), *map(Decimal, turns), Decimal(max(turns, default=0) + 1)]
    return [*ends, *((low + high) * Decimal("0.5") for low, high in pairwise(ends))]
