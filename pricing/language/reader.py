"""From the TOML text of a price program to its tree, with the line and column of whatever is wrong.

Strict on purpose: an unknown key, a default for a usage key that no expression reads, a charge with two kinds of
price are errors, because in a price list a slip of the pen costs money.
"""

import re
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Literal, TypeVar, cast

from ledger.money import MICROCENTS_PER_CENT, MICROCENTS_PER_UNIT
from pricing.language.definition import (
    Adjustment,
    Case,
    Cases,
    Charge,
    Definition,
    Flat,
    Graduated,
    Rate,
    Tier,
    Volume,
)
from pricing.language.document import Document, Table
from pricing.language.expressions import ZERO, Condition, Kind, Number
from pricing.language.grammar import KEY_NAME, RESERVED, ExpressionError, KeyUse, parse_condition, parse_number
from pricing.language.positions import Path
from pricing.language.rounding import ROUNDERS, Rounding, RoundingMode

#: Charges of a program, and prices (tiers or cases) of one charge: more is a mistake of a generator.
MAX_CHARGES = 256
MAX_PRICES = 256
MAX_ADJUSTMENTS = 64

#: Names for the quantum of the rounding, in microcents.
QUANTA = {"microcent": 1, "cent": MICROCENTS_PER_CENT}

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:+-]{0,127}")
_CURRENCY = re.compile(r"[A-Z]{3}")

T = TypeVar("T")


def read_definition(text: str) -> Definition:
    """The tree of a program. Raises ProgramError."""
    return _Reader(Document(text)).definition()


class _Reader:
    def __init__(self, document: Document) -> None:
        self.document = document
        self.kinds: dict[str, Kind] = {}

    def definition(self) -> Definition:
        root = self.document.root
        root.only(
            "id", "currency", "description", "not_charged", "defaults", "values", "charges", "adjustments", "rounding"
        )
        charges = tuple(self.charge(table) for table in root.tables("charges", MAX_CHARGES))
        if not charges:
            root.fail("charges", "a program needs a charge; a free model has one at price 0")
        adjustments = tuple(self.adjustment(table) for table in root.tables("adjustments", MAX_ADJUSTMENTS))
        self.refuse_equal_names(charges, adjustments)
        return Definition(
            id=self.matching(root, "id", _ID, "letters, digits and . _ / : + -"),
            currency=self.matching(root, "currency", _CURRENCY, "three capital letters, as in ISO 4217"),
            description=root.text("description") if "description" in root else "",
            defaults=self.defaults(root.table("defaults")),
            values=self.allowed_values(root.table("values"), root.table("defaults")),
            not_charged=self.not_charged(root),
            charges=charges,
            adjustments=adjustments,
            rounding=self.rounding(root.table("rounding")),
        )

    def charge(self, table: Table) -> Charge:
        table.only(
            "name", "meter", "per", "price", "prices", "tiers", "tiering", "tier_by", "tier_after", "when", "free"
        )
        return Charge(
            name=table.text("name"),
            meter=self.number(table, "meter"),
            rate=self.rate(table),
            per=table.positive("per") if "per" in table else Decimal(1),
            when=self.when(table),
            free=table.number("free") if "free" in table else Decimal(0),
        )

    def rate(self, table: Table) -> Rate:
        kinds = [key for key in ("price", "prices", "tiers") if key in table]
        if len(kinds) != 1:
            self.document.fail(table.path, "a charge has either 'price', or 'prices' by case, or 'tiers'")
        for key in ("tiering", "tier_by", "tier_after"):
            if key in table and kinds != ["tiers"]:
                table.fail(key, f"{key!r} needs 'tiers'")
        match kinds[0]:
            case "price":
                return Flat(table.number("price"))
            case "prices":
                return self.cases(table)
            case _:
                return self.tiered(table)

    def cases(self, table: Table) -> Cases:
        cases: list[Case] = []
        for row in table.tables("prices", MAX_PRICES):
            row.only("when", "price")
            if cases and cases[-1].when is None:
                self.document.fail(row.path, "no case comes after the one without 'when'")
            cases.append(Case(self.when(row), row.number("price")))
        if not cases:
            table.fail("prices", "'prices' needs at least one case")
        return Cases(tuple(cases))

    def tiered(self, table: Table) -> Graduated | Volume:
        tiers: list[Tier] = []
        for row in table.tables("tiers", MAX_PRICES):
            row.only("up_to", "price")
            up_to = row.positive("up_to") if "up_to" in row else None
            below = tiers[-1].up_to if tiers else Decimal(0)
            if below is None:
                self.document.fail(row.path, "no tier comes after the one without 'up_to'")
            if up_to is not None and up_to <= below:
                row.fail("up_to", "tiers must rise: this one ends where the one before it does, or sooner")
            tiers.append(Tier(up_to, row.number("price")))
        if not tiers:
            table.fail("tiers", "'tiers' needs at least one tier")
        if table.one_of("tiering", ("graduated", "volume")) == "volume":
            if "tier_after" in table:
                table.fail("tier_after", "'tier_after' is for graduated tiers")
            return Volume(tuple(tiers), self.number(table, "tier_by") if "tier_by" in table else None)
        if "tier_by" in table:
            table.fail("tier_by", "'tier_by' is for volume tiers")
        return Graduated(tuple(tiers), self.number(table, "tier_after") if "tier_after" in table else ZERO)

    def adjustment(self, table: Table) -> Adjustment:
        table.only("name", "factor", "minimum", "maximum", "when")
        kinds = [key for key in ("factor", "minimum", "maximum") if key in table]
        if len(kinds) != 1:
            self.document.fail(table.path, "an adjustment has either 'factor', or 'minimum', or 'maximum'")
        kind = cast(Literal["factor", "minimum", "maximum"], kinds[0])
        return Adjustment(table.text("name"), kind, table.number(kind), self.when(table))

    def rounding(self, table: Table) -> Rounding:
        table.only("mode", "quantum")
        mode = cast(RoundingMode, table.one_of("mode", tuple(ROUNDERS))) if "mode" in table else "up"
        if "quantum" not in table:
            return Rounding(mode)
        quantum = table.values["quantum"]
        if isinstance(quantum, str) and quantum in QUANTA:
            return Rounding(mode, QUANTA[quantum])
        microcents = Fraction(table.positive("quantum")) * MICROCENTS_PER_UNIT
        if microcents.denominator != 1:
            table.fail("quantum", "'quantum' must be microcent, cent, or an amount of whole microcents")
        return Rounding(mode, microcents.numerator)

    def defaults(self, table: Table) -> dict[str, Decimal | str | bool]:
        defaults: dict[str, Decimal | str | bool] = {}
        for key in table.values:
            value = table.values[key]
            match self.known_kind(table, key):
                case "number":
                    defaults[key] = table.number(key)
                case "text":
                    if not isinstance(value, str):
                        table.fail(key, f"{key!r} is compared with texts: its default must be one")
                    defaults[key] = value
                case "flag":
                    if not isinstance(value, bool):
                        table.fail(key, f"{key!r} is used as true or false: its default must be one")
                    defaults[key] = value
        return defaults

    def allowed_values(self, table: Table, defaults: Table) -> dict[str, tuple[str, ...]]:
        values: dict[str, tuple[str, ...]] = {}
        for key in table.values:
            if self.known_kind(table, key) != "text":
                table.fail(key, f"{key!r} is not compared with texts")
            values[key] = table.texts(key)
            if key in defaults and defaults.values[key] not in values[key]:
                defaults.fail(key, f"the default of {key!r} is not among its values")
        return values

    def known_kind(self, table: Table, key: str) -> Kind:
        if key not in self.kinds:
            self.document.fail_at_key((*table.path, key), f"no expression of the program reads {key!r}")
        return self.kinds[key]

    def not_charged(self, root: Table) -> tuple[str, ...]:
        if "not_charged" not in root:
            return ()
        names = root.texts("not_charged")
        for index, name in enumerate(names):
            if not KEY_NAME.fullmatch(name) or name in RESERVED:
                self.document.fail((*root.path, "not_charged", index), f"{name!r} cannot be a usage key")
            if name in self.kinds:
                self.document.fail((*root.path, "not_charged", index), f"{name!r} is read by the program")
        return names

    def matching(self, table: Table, key: str, pattern: re.Pattern[str], meaning: str) -> str:
        value = table.text(key)
        if not pattern.fullmatch(value):
            table.fail(key, f"{key!r} must be {meaning}")
        return value

    def refuse_equal_names(self, charges: tuple[Charge, ...], adjustments: tuple[Adjustment, ...]) -> None:
        names: list[tuple[str, Path]] = []
        names += ((charge.name, ("charges", index)) for index, charge in enumerate(charges))
        names += ((each.name, ("adjustments", index)) for index, each in enumerate(adjustments))
        seen: set[str] = set()
        for name, path in names:
            if name in seen:
                self.document.fail((*path, "name"), f"there are two lines named {name!r}")
            seen.add(name)

    def number(self, table: Table, key: str) -> Number:
        return self.expression(table, key, parse_number)

    def when(self, table: Table) -> Condition | None:
        return self.expression(table, "when", parse_condition) if "when" in table else None

    def expression(self, table: Table, key: str, parse: Callable[[str], tuple[T, list[KeyUse]]]) -> T:
        text = table.need(key)
        path = (*table.path, key)
        if not isinstance(text, str):
            table.fail(key, f"{key!r} must be an expression in quotes")
        try:
            tree, uses = parse(text)
        except ExpressionError as error:
            self.document.fail_within(path, text, error.offset, error.message)
        for use in uses:
            known = self.kinds.setdefault(use.name, use.kind)
            if known != use.kind:
                message = f"{use.name!r} is a {use.kind} here, but a {known} before"
                self.document.fail_within(path, text, use.offset, message)
        return tree
