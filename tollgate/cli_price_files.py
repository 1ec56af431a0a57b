"""``tollgate prices``, files: look a program over, try it on usages, compare two, draw one; nothing is published."""

import argparse
import difflib
import json
from collections.abc import Iterator
from decimal import Context, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

from ledger.money import units_text
from pricing import Price, Program, ProgramError, format_program, parse_program
from pricing.cases import read_cases, run_case
from pricing.chart import chart_svg
from pricing.compare import Jump, unit_price_jumps, whole_price_jumps
from pricing.language.rounding import exact_text
from pricing.lint import suspicions

#: The name of the file of cases beside a program, and the ending that tells one from a program.
CASES = ".cases.toml"


def add_commands(prices: Any) -> None:
    """Add this module's commands to ``tollgate prices``."""
    lint = prices.add_parser(
        "lint", help="find mistakes in files of programs and cases, and what is probably not meant"
    )
    lint.add_argument("files", type=Path, nargs="+", metavar="FILE")
    lint.set_defaults(run=_lint)
    test = prices.add_parser("test", help="run the cases of a program, or price one usage")
    test.add_argument("file", type=Path)
    test.add_argument("--cases", type=Path, help="file of cases (default: NAME.cases.toml beside NAME.toml)")
    test.add_argument("--usage", type=_usage, metavar="JSON", help="print the receipt of this usage")
    test.set_defaults(run=_test)
    diff = prices.add_parser("diff", help="what changes from one program to another")
    diff.add_argument("before", type=Path)
    diff.add_argument("after", type=Path)
    diff.set_defaults(run=_diff)
    chart = prices.add_parser("chart", help="draw the price over the tokens as SVG")
    chart.add_argument("file", type=Path)
    chart.add_argument("--out", type=Path, required=True, metavar="FILE.svg")
    chart.add_argument("--usage", type=_usage, default={}, metavar="JSON", help="keys to hold fast, such as the mode")
    chart.set_defaults(run=_chart)


def _lint(options: argparse.Namespace) -> int:
    return max([_lint_file(file) for file in options.files])


def _lint_file(file: Path) -> int:
    """Prints what is wrong with the file, or that nothing is. Gives 1 for a mistake; a suspicion is none."""
    text = file.read_text(encoding="utf-8")
    try:
        if file.name.endswith(CASES):
            print(f"{file}: {len(read_cases(text))} cases")
            return 0
        program = parse_program(text)
    except ProgramError as error:
        print(f"{file}:{error.line}:{error.column}: {error.message}")
        return 1
    suspected = suspicions(program)
    for each in suspected:
        print(f"{file}:{each.line}:{each.column}: suspicious: {each.message}")
    if not suspected:
        print(f"{file}: {program.id}, {len(program.charges)} charges in {program.currency}")
    return 0


def _test(options: argparse.Namespace) -> int:
    program = _program(options.file)
    if options.usage is not None:
        _print_receipt(program.price(options.usage), program.currency)
        if options.cases is None:
            return 0
    cases = read_cases((options.cases or options.file.with_suffix(CASES)).read_text(encoding="utf-8"))
    results = [run_case(program, case) for case in cases]
    for result in results:
        for difference in result.differences:
            print(f"{result.case.name!r} {difference}")
    passed = sum(result.is_passed for result in results)
    print(f"{options.file}: {passed} of {len(results)} cases passed")
    return 0 if passed == len(results) else 1


def _print_receipt(price: Price, currency: str) -> None:
    rows = [
        (line.name, line.quantity, f"× {line.unit_price}", units_text(line.amount_microcents, currency))
        for line in price.lines
    ]
    _print_table([*rows, ("total", "", "", units_text(price.total_microcents, currency))])


def _diff(options: argparse.Namespace) -> None:
    before, after = _program(options.before), _program(options.after)
    old, new = (format_program(program).splitlines() for program in (before, after))
    for line in difflib.unified_diff(old, new, str(options.before), str(options.after), lineterm=""):
        print(line)
    names = [[charge.name for charge in program.charges] for program in (before, after)]
    rows = [(jump.charge, *_moved(jump)) for jump in unit_price_jumps(before, after)]
    rows += [(name, "", "", "gone") for name in names[0] if name not in names[1]]
    rows += [(name, "", "", "new") for name in names[1] if name not in names[0]]
    rows += [(jump.charge, *_moved(jump)) for jump in whole_price_jumps(before, after, Decimal(1))]
    _print_table([("", "before", "after", "factor"), *rows])


def _moved(jump: Jump) -> tuple[str, str, str]:
    factor = "" if jump.factor is None else _rounded(jump.factor)
    return exact_text(jump.before), exact_text(jump.after), factor


def _rounded(factor: Fraction) -> str:
    """To four digits, for reading."""
    return format(Context(prec=4).divide(Decimal(factor.numerator), Decimal(factor.denominator)).normalize(), "f")


def _chart(options: argparse.Namespace) -> None:
    if options.out.suffix != ".svg":
        raise ValueError(f"the chart of a program is an .svg, not {options.out.suffix!r}")
    svg = chart_svg(_program(options.file), options.usage)
    options.out.write_text(svg, encoding="utf-8")
    print(f"{options.out} drawn")


def _program(file: Path) -> Program:
    try:
        return parse_program(file.read_text(encoding="utf-8"))
    except ProgramError as error:
        raise ValueError(f"{file}:{error.line}:{error.column}: {error.message}") from None


def _usage(text: str) -> dict[str, Any]:
    try:
        usage = json.loads(text, parse_float=Decimal)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from None
    if not isinstance(usage, dict):
        raise argparse.ArgumentTypeError("a JSON object of usage keys is needed")
    return usage


def _print_table(rows: list[tuple[str, ...]]) -> None:
    """Texts to the left in the first column, numbers to the right in all others."""
    for line in _aligned(rows):
        print(line)


def _aligned(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [first.ljust(widths[0]), *(text.rjust(width) for text, width in zip(others, widths[1:], strict=True))]
        yield "  ".join(cells).rstrip()
