"""Their lines against ours, one by one. Pure.

Both sides are loaded for longer than the period, then matched, and only then cut to it: what they booked a moment
before midnight and we a moment after is no break of either day. We book after they have moved, so of what is outside
the period only their earlier lines and our later ones can belong to what is in it.

Lines of one kind and reference are paired where the amounts are equal. One booking of ours may stand for several of
their movements, and what cancels out may never have been booked: lines that are left over match when their sums do.
"""

import hashlib
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Literal, TypeAlias

import msgspec

from ledger.providers import BreakKind
from payments.reconciliation.lines import Line, LineKind, Period

Status: TypeAlias = Literal["matched"] | BreakKind
#: What lines of both sides are about: the kind, and the provider's id.
Subject: TypeAlias = tuple[LineKind, str]


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """Lines that belong together, and whether they fit."""

    status: Status
    kind: LineKind
    reference: str
    theirs: tuple[Line, ...]
    ours: tuple[Line, ...]
    break_id: str | None = None  # the same in every run that finds the same difference; None: it is none


def match(provider: str, theirs: Iterable[Line], ours: Iterable[Line], period: Period) -> list[Item]:
    """What is in the period, and all that belongs to it, in order of kind and reference."""
    sides: dict[Subject, tuple[list[Line], list[Line]]] = {}
    for side, lines in enumerate((theirs, ours)):
        for line in lines:
            sides.setdefault(subject_of(line), ([], []))[side].append(line)
    items = [item for key in sorted(sides) for item in _match_one(provider, *sides[key], period)]
    return [item for item in items if any(period.has(line.at) for line in (*item.theirs, *item.ours))]


def subject_of(about: Line | Item) -> Subject:
    return about.kind, about.reference


def may_be_late(item: Item) -> bool:
    """Whether the difference may be that one side is booked longer after the other than was read.

    Our credits of their payments, and our bookings of their fees and payouts, are found whenever they were made.
    """
    match item.kind:
        case "payment":
            return item.status == "missing_there"
        case "refund" | "dispute":
            return item.break_id is not None
        case _:
            return False


def _match_one(provider: str, theirs: list[Line], ours: list[Line], period: Period) -> list[Item]:
    pairs, theirs, ours = _pairs(_in_order(theirs), _in_order(ours))
    items = [_item("matched", (one,), (other,)) for one, other in pairs]
    if not _sums_are_equal(theirs, ours):
        theirs = [line for line in theirs if line.at < period.end]
        ours = [line for line in ours if line.at >= period.start]
    if not theirs and not ours:
        return items
    if _sums_are_equal(theirs, ours):
        return [*items, _item("matched", theirs, ours)]
    return [*items, *_breaks(provider, theirs, ours)]


def _pairs(theirs: list[Line], ours: list[Line]) -> tuple[list[tuple[Line, Line]], list[Line], list[Line]]:
    """Lines of equal amounts two by two, in order, and what is left over of both sides."""
    pairs, left, waiting = [], [], list(ours)
    for line in theirs:
        twin = next((other for other in waiting if _money(other) == _money(line)), None)
        if twin is None:
            left.append(line)
        else:
            waiting.remove(twin)
            pairs.append((line, twin))
    return pairs, left, waiting


def _breaks(provider: str, theirs: list[Line], ours: list[Line]) -> list[Item]:
    if theirs and ours:
        currencies = {line.currency for line in (*theirs, *ours)}
        status: Status = "different_amount" if len(currencies) == 1 else "different_currency"
        return [_break(provider, status, theirs, ours)]
    missing_here = [_break(provider, "missing_here", [line], []) for line in theirs]
    return missing_here + [_break(provider, "missing_there", [], [line]) for line in ours]


def _break(provider: str, status: Status, theirs: Sequence[Line], ours: Sequence[Line]) -> Item:
    item = _item(status, theirs, ours)
    said = [
        provider,
        status,
        item.kind,
        item.reference,
        *([_identity(line) for line in side] for side in (theirs, ours)),
    ]
    digest = hashlib.sha256(msgspec.json.encode(said)).hexdigest()
    return msgspec.structs.replace(item, break_id=f"brk_{digest[:26]}")


def _item(status: Status, theirs: Sequence[Line], ours: Sequence[Line]) -> Item:
    first = (*theirs, *ours)[0]
    return Item(status=status, kind=first.kind, reference=first.reference, theirs=tuple(theirs), ours=tuple(ours))


def _sums_are_equal(theirs: Iterable[Line], ours: Iterable[Line]) -> bool:
    sums: dict[str, Decimal] = {}
    for sign, lines in ((1, theirs), (-1, ours)):
        for line in lines:
            sums[line.currency] = sums.get(line.currency, Decimal(0)) + sign * line.amount
    return not any(sums.values())


def _in_order(lines: list[Line]) -> list[Line]:
    return sorted(lines, key=lambda line: (line.at, line.id))


def _money(line: Line) -> tuple[str, Decimal]:
    return line.currency, line.amount


def _identity(line: Line) -> list[str]:
    """What a line is in a break's id: however its amount was written."""
    return [line.id, line.currency, f"{line.amount.normalize():f}"]
