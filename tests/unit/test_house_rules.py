"""Rules of the house that a reader would otherwise have to check by eye."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Rooms where money is reckoned.
MONEY_ROOMS = [room for room in ("ledger", "pricing", "payments") if (ROOT / room).is_dir()]
PACKAGES = sorted(path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name not in ("tests", "bench"))

LONGEST_FUNCTION = 70  # lines from its def, decorators and docstring not counted
LONGEST_FILE = 500

#: What may stand in a money room although it is a float, a division or a clock, and why: (file, what) → reason.
EXCEPTIONS = {
    ("ledger/errors.py", "float"): "seconds until a refused request may come again",
    ("ledger/committer.py", "float"): "seconds of patience, and a moment of the loop's clock",
    ("ledger/committer.py", "5.0"): "seconds of retrying",
    ("ledger/committer.py", "10.0"): "seconds that a group may take",
    ("ledger/committer.py", "0.05"): "seconds of backoff",
    ("ledger/committer.py", "1.0"): "seconds of backoff",
    ("ledger/leases.py", "0.5"): "seconds between two looks",
    ("ledger/leases.py", "1.0"): "seconds that an answer may take",
    ("ledger/leases.py", "10.0"): "seconds that taking a lease may take",
    ("ledger/ledger.py", "float"): "seconds of the committers' patience",
    ("ledger/ids.py", "time.time_ns"): "an id begins with the time it was made",
    ("ledger/money.py", "division"): "of two Decimals that come out exactly: the largest amount in cents",
    ("payments/usdc/config.py", "float"): "seconds between two looks at a chain, and that a node may take",
    ("payments/usdc/config.py", "5.0"): "seconds between two looks",
    ("payments/usdc/config.py", "10.0"): "seconds that a node may take",
    ("pricing/language/definition.py", "division"): "of Fractions, exact",
    ("pricing/language/expressions.py", "division"): "of Fractions, exact",
    ("pricing/language/plan.py", "division"): "of Fractions, exact",
    ("pricing/language/receipt.py", "division"): "of Fractions, exact",
    ("pricing/language/usage.py", "float"): "asks whether a value is one, to refuse it",
}
#: Functions of ``math`` that take and give integers.
INTEGER_MATH = {"lcm", "gcd", "prod", "isqrt", "comb"}
DUMPING_GROUNDS = {"utils", "util", "common", "helpers", "helper", "misc", "core", "services"}


def python_files(*rooms: str) -> list[Path]:
    return sorted(file for room in rooms for file in (ROOT / room).rglob("*.py"))


def all_files() -> list[Path]:
    packages = [package.name for package in PACKAGES]
    return python_files(*packages, "tests", "bench")


def relative(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def floats_and_clocks(file: Path) -> Iterator[tuple[int, str]]:
    """(line, what it is) of every float, true division and clock in a file."""
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.Constant(value=float() | complex()):
                yield node.lineno, ast.unparse(node)
            case ast.Name(id="float" | "complex", ctx=ast.Load()):
                yield node.lineno, node.id
            case ast.BinOp(op=ast.Div()) | ast.AugAssign(op=ast.Div()):
                yield node.lineno, "division"
            case ast.Attribute(value=ast.Name(id="time")):
                yield node.lineno, ast.unparse(node)
            case ast.Attribute(attr="now" | "utcnow" | "today", value=ast.Name(id="datetime" | "date")):
                yield node.lineno, ast.unparse(node)
            case ast.Import(names=names):
                yield from ((node.lineno, name.name) for name in names if name.name in ("math", "random"))
            case ast.ImportFrom(module="math" | "random" | "time" as module, names=names):
                yield from ((node.lineno, f"{module}.{n.name}") for n in names if n.name not in INTEGER_MATH)


@pytest.mark.money_bug(38)
@pytest.mark.parametrize("file", python_files(*MONEY_ROOMS), ids=relative)
def test_no_float_no_division_and_no_clock_stands_where_money_is_reckoned(file: Path) -> None:
    found = [
        f"{relative(file)}:{line}: {what}"
        for line, what in floats_and_clocks(file)
        if (relative(file), what) not in EXCEPTIONS
    ]

    assert found == []


def test_every_exception_from_that_rule_is_still_needed() -> None:
    found = {(relative(file), what) for file in python_files(*MONEY_ROOMS) for _, what in floats_and_clocks(file)}

    assert set() == EXCEPTIONS.keys() - found


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_every_package_says_what_it_is_and_what_it_exports(package: Path) -> None:
    module = importlib.import_module(package.name)

    assert module.__doc__
    assert len(module.__doc__.split()) >= 10
    if len(python_files(package.name)) > 1 and package.name not in ("migrations", "tollgate"):
        assert len(set(module.__all__)) == len(module.__all__)
        assert [name for name in module.__all__ if not hasattr(module, name)] == []


@pytest.mark.parametrize("file", all_files(), ids=relative)
def test_files_and_functions_stay_short(file: Path) -> None:
    text = file.read_text()

    assert text.count("\n") <= LONGEST_FILE
    assert [
        f"{node.name}: {length}"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := length_without_docstring(node)) > LONGEST_FUNCTION
    ] == []


def length_without_docstring(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    docstring = function.body[0] if ast.get_docstring(function) is not None else None
    documented = 0 if docstring is None else (docstring.end_lineno or 0) - docstring.lineno + 1
    return (function.end_lineno or 0) - function.lineno + 1 - documented


def test_nothing_is_a_dumping_ground() -> None:
    assert [relative(file) for file in all_files() if {file.stem, file.parent.name} & DUMPING_GROUNDS] == []


@pytest.mark.parametrize("file", python_files("tests"), ids=relative)
def test_every_test_name_is_a_sentence(file: Path) -> None:
    names = [
        node.name
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]

    assert [name for name in names if name.count("_") < 3] == []
