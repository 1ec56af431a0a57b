"""A table of prices by case, as every list can be read, and the charges that say the same.

The lists differ in how they write a price that depends on something: a suffix of a field, a list of tiers, a variant.
Read out, each is a table: rows that say when they hold, and a price for each part of the tokens. What a program needs
of it, this module finds: a flat price, tiers by the length of the prompt, or cases; and which parts cost what their
whole costs, so that they need no charge of their own.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import TypeAlias

import msgspec

from pricing.importers.token_parts import PARTS, meter_of, next_wholes, part_name
from pricing.language.definition import Case, Cases, Charge, Flat, Rate, Tier, Volume
from pricing.language.expressions import Condition, Key
from pricing.language.grammar import parse_condition, parse_number

#: Prices of tokens are written for a million of them.
TOKENS_PER_PRICE = Decimal(1_000_000)


class Row(msgspec.Struct, frozen=True):
    """The prices where all of ``when`` holds and the prompt is longer than ``above`` tokens."""

    when: tuple[str, ...]  # conditions
    above: int
    prices: dict[str, Decimal]  # part → for ``TOKENS_PER_PRICE``


#: Rows with the same parts. Conditions are exclusive or go from the more special to the more general: the first row
#: whose conditions hold prices the request, among those the one with the highest ``above`` that the prompt exceeds.
#: The last conditions are none, or else a request that fits none has no price.
RateTable: TypeAlias = Sequence[Row]

#: (above, price), rising: the price of one part by the length of the prompt. The first is above 0.
_Ladder: TypeAlias = tuple[tuple[int, Decimal], ...]
_Ladders: TypeAlias = dict[tuple[str, ...], _Ladder]


def token_charges(table: RateTable) -> list[Charge]:
    """One charge for each part that does not cost what its whole costs."""
    columns = {part: _ladders(table, part) for part in PARTS if part in table[0].prices}
    parts = _priced_apart(columns)
    return [
        Charge(part_name(part), meter_of(part, parts), _rate(columns[part]), TOKENS_PER_PRICE, None, Decimal(0))
        for part in parts
    ]


def unit_charge(
    name: str,
    meter: str,
    price: Decimal | None,
    *,
    per: int = 1,
    free: int = 0,
    when: str | None = None,
    cases: Sequence[tuple[str, Decimal]] = (),
) -> Charge:
    """A charge for anything but tokens: at the first of ``cases`` that fits, or else at ``price``, if there is one."""
    others = [] if price is None else [Case(None, price)]
    rate: Rate = Cases((*(Case(_condition(case), special) for case, special in cases), *others))
    if price is not None and not cases:
        rate = Flat(price)
    condition = None if when is None else _condition(when)
    return Charge(name, parse_number(meter)[0], rate, Decimal(per), condition, Decimal(free))


def _priced_apart(columns: dict[str, _Ladders]) -> list[str]:
    """The parts that need a charge: all but those that are inside one other part and always cost the same as it."""
    parts = list(columns)
    while True:
        needless = [
            part
            for part in parts
            if len(wholes := next_wholes(part, parts)) == 1 and columns[part] == columns[wholes[0]]
        ]
        if not needless:
            return parts
        parts.remove(needless[0])


def _ladders(table: RateTable, part: str) -> _Ladders:
    ladders: _Ladders = {}
    for row in sorted(table, key=lambda row: row.above):
        steps = ladders.get(row.when, ())
        if not steps or steps[-1][1] != row.prices[part]:
            ladders[row.when] = (*steps, (row.above, row.prices[part]))
    return _without_repetitions({when: ladders[when] for when in dict.fromkeys(row.when for row in table)})


def _without_repetitions(ladders: _Ladders) -> _Ladders:
    """Leaves out each ladder that the next that holds whenever it holds repeats."""
    kept: _Ladders = {}
    for when, ladder in reversed(ladders.items()):
        following = next((kept[general] for general in reversed(kept) if set(general) <= set(when)), None)
        if following != ladder:
            kept[when] = ladder
    return dict(reversed(kept.items()))


def _rate(ladders: _Ladders) -> Rate:
    if len(ladders) > 1 or () not in ladders:
        cases = (
            Case(_condition(*when, *([f"input_tokens > {above}"] if above else [])), price)
            for when, ladder in ladders.items()
            for above, price in reversed(ladder)
        )
        return Cases(tuple(cases))
    (ladder,) = ladders.values()
    if len(ladder) == 1:
        return Flat(ladder[0][1])
    ends = [Decimal(above) for above, _ in ladder[1:]]
    tiers = (Tier(end, price) for end, (_, price) in zip([*ends, None], ladder, strict=True))
    return Volume(tuple(tiers), Key("input_tokens"))


def _condition(*conditions: str) -> Condition | None:
    return parse_condition(" and ".join(conditions))[0] if conditions else None
