"""A price program: its text, its tree, and the two functions that the tree is compiled to."""

from collections.abc import Callable
from decimal import Decimal
from hashlib import sha256
from typing import Any

import msgspec

from ledger.money import Microcents
from pricing.circumstances import CIRCUMSTANCES
from pricing.errors import ProgramError
from pricing.language.bound import compile_bound
from pricing.language.definition import Adjustment, Charge, Definition
from pricing.language.exact import compile_price
from pricing.language.expressions import Kind
from pricing.language.plan import plan_of
from pricing.language.reader import read_definition
from pricing.language.receipt import Price
from pricing.language.rounding import Rounding
from pricing.language.usage import Usage, UsageBox


class Program(msgspec.Struct, frozen=True, eq=False):
    """One immutable price program. Parse it once, price with it from any thread."""

    text: str
    digest: str  # hex SHA-256 of the text's UTF-8 bytes
    definition: Definition
    keys: dict[str, Kind]  # the usage keys it reads, in the order it names them
    _price: Callable[[Usage], Price]
    _bound: Callable[[UsageBox], Microcents]

    @property
    def id(self) -> str:
        return self.definition.id

    @property
    def currency(self) -> str:
        return self.definition.currency

    @property
    def charges(self) -> tuple[Charge, ...]:
        return self.definition.charges

    @property
    def adjustments(self) -> tuple[Adjustment, ...]:
        return self.definition.adjustments

    @property
    def rounding(self) -> Rounding:
        return self.definition.rounding

    def price(self, usage: Usage) -> Price:
        """What exactly the usage costs, in microcents of the program's currency; never below zero.

        Raises UsageError, and nothing else, for a usage that lacks a key the program reads, has a value of
        another type, makes a meter negative, or that no charge, case or tier covers.
        """
        return self._price(usage)

    def bound(self, box: UsageBox) -> Microcents:
        """The most that a usage in the box can cost, in microcents of the program's currency.

        For every usage in the box that can be priced, price ≤ bound; on a box of plain values they are equal.
        Raises UsageError, and nothing else, when the box lacks a key or holds no usage that could be priced.
        """
        return self._bound(box)


def parse_program(text: str) -> Program:
    """The program that the TOML text spells. Raises ProgramError with line and column."""
    try:
        digest = sha256(text.encode()).hexdigest()
    except UnicodeEncodeError as error:
        line = text.count("\n", 0, error.start) + 1
        column = error.start - text.rfind("\n", 0, error.start)
        raise ProgramError("a character that is not Unicode text", line, column) from None
    definition = read_definition(text)
    try:
        plan = plan_of(definition)
    except OverflowError as error:
        raise ProgramError(str(error), 1, 1) from None
    return Program(
        text=text,
        digest=digest,
        definition=definition,
        keys=definition.keys(),
        _price=compile_price(definition, plan),
        _bound=compile_bound(definition, plan),
    )


def unknown_meters(program: Program, usage: Usage) -> tuple[str, ...]:
    """The keys of the usage with a number above zero that the program neither reads nor declares ``not_charged``. The
    caller reports them: the backend counts what the price list has not heard of."""
    return tuple(
        key
        for key, value in usage.items()
        if key not in program.keys and key not in program.definition.not_charged and key not in CIRCUMSTANCES
        if _is_above_zero(value)
    )


def _is_above_zero(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        return False
    return bool(value)
