"""Test cases of a price program: usages beside what each must cost, or why it must be refused.

    [[cases]]
    name = "a short chat"
    usage = { input_tokens = 1000, output_tokens = 500 }
    total = 0.00045
    lines = [{ name = "input", quantity = 1000, unit_price = 0.00000015, amount = 0.00015 }, …]

    [[cases]]
    name = "more cached than there is"
    usage = { input_tokens = 10, cached_input_tokens = 11, output_tokens = 0 }
    refused = "cached_input_tokens"

Amounts are exact decimals in the major unit of the program's currency. ``lines`` may be left out; where it stands, it
names every line of the receipt, each with its ``amount`` and whatever else of it matters.
"""

from collections.abc import Iterator
from fractions import Fraction

import msgspec

from ledger.money import MICROCENTS_PER_UNIT, Microcents, units_text
from pricing.errors import UsageError
from pricing.language.document import Document, Table
from pricing.language.program import Program, unknown_meters
from pricing.language.receipt import ChargeLine, Price
from pricing.language.rounding import exact_text
from pricing.language.usage import Usage

#: Cases of one file. Beyond that a table in a spreadsheet has been poured out, and nobody has worked them by hand.
MAX_CASES = 1000
MAX_LINES = 1000


class ExpectedLine(msgspec.Struct, frozen=True):
    """A line that the receipt must have. What is None may be anything."""

    name: str
    amount_microcents: Microcents
    quantity: str | None
    unit_price: str | None


class ExpectedPrice(msgspec.Struct, frozen=True):
    total_microcents: Microcents
    lines: tuple[ExpectedLine, ...] | None  # all lines of the receipt; None = whatever they are


class ExpectedRefusal(msgspec.Struct, frozen=True):
    key: str  # one of those that UsageError names


class UsageCase(msgspec.Struct, frozen=True):
    name: str
    usage: Usage
    expected: ExpectedPrice | ExpectedRefusal


class CaseResult(msgspec.Struct, frozen=True):
    case: UsageCase
    differences: tuple[str, ...]  # one sentence for each thing that is not as expected

    @property
    def is_passed(self) -> bool:
        return not self.differences


def read_cases(text: str) -> list[UsageCase]:
    """The cases of a TOML text. Raises ProgramError with line and column for a text that is none."""
    root = Document(text).root
    root.only("cases")
    cases = [_case(table) for table in root.tables("cases", MAX_CASES)]
    if not cases:
        root.fail("cases", "a file of cases needs a case")
    return cases


def run_case(program: Program, case: UsageCase) -> CaseResult:
    """Price the case's usage and compare; never raises for what the program says of it."""
    try:
        found: Price | UsageError = program.price(case.usage)
    except UsageError as error:
        found = error
    unheard = (
        f"has {key}, which the program neither reads nor declares not_charged"
        for key in unknown_meters(program, case.usage)
    )
    return CaseResult(case, (*_differences(program.currency, case.expected, found), *unheard))


def _case(table: Table) -> UsageCase:
    table.only("name", "usage", "total", "lines", "refused")
    if ("total" in table) == ("refused" in table):
        table.document.fail(table.path, "a case has either a 'total', or the usage key for which it is 'refused'")
    if "refused" in table:
        if "lines" in table:
            table.fail("lines", "a refused usage has no lines")
        expected: ExpectedPrice | ExpectedRefusal = ExpectedRefusal(table.text("refused"))
    else:
        lines = tuple(map(_line, table.tables("lines", MAX_LINES))) if "lines" in table else None
        expected = ExpectedPrice(_amount(table, "total"), lines)
    table.need("usage")
    return UsageCase(table.text("name"), table.table("usage").values, expected)


def _line(table: Table) -> ExpectedLine:
    table.only("name", "quantity", "unit_price", "amount")
    quantity, unit_price = (
        exact_text(Fraction(table.number(key))) if key in table else None for key in ("quantity", "unit_price")
    )
    return ExpectedLine(table.text("name"), _amount(table, "amount"), quantity, unit_price)


def _amount(table: Table, key: str) -> Microcents:
    microcents = Fraction(table.number(key)) * MICROCENTS_PER_UNIT
    if microcents.denominator != 1:
        table.fail(key, f"{key!r} is finer than a microcent (eight decimals)")
    return Microcents(microcents.numerator)


def _differences(currency: str, expected: ExpectedPrice | ExpectedRefusal, found: Price | UsageError) -> Iterator[str]:
    match expected, found:
        case ExpectedPrice(), UsageError():
            yield f"is refused: {found}"
        case ExpectedRefusal(key), UsageError() if key not in found.key.split(", "):
            yield f"is refused for another reason than {key}: {found}"
        case ExpectedRefusal(key), Price():
            yield f"costs {units_text(found.total_microcents, currency)}, but should be refused for {key}"
        case ExpectedPrice(total, lines), Price():
            if found.total_microcents != total:
                costs, should = (units_text(each, currency) for each in (found.total_microcents, total))
                yield f"costs {costs}, not {should}"
            if lines is not None:
                yield from _differences_of_lines(currency, lines, found.lines)


def _differences_of_lines(
    currency: str, expected: tuple[ExpectedLine, ...], found: tuple[ChargeLine, ...]
) -> Iterator[str]:
    names, expected_names = ([line.name for line in lines] for lines in (found, expected))
    if names != expected_names:
        yield f"has the lines {names}, not {expected_names}"
        return
    for line, should in zip(found, expected, strict=True):
        for what, is_so, should_be in (
            ("quantity", line.quantity, should.quantity),
            ("unit price", line.unit_price, should.unit_price),
            ("amount", *(units_text(each.amount_microcents, currency) for each in (line, should))),
        ):
            if should_be is not None and is_so != should_be:
                yield f"has {what} {is_so}, not {should_be}, on the line {line.name!r}"
