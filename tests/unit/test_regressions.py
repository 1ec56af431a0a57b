"""Every money bug of ``docs/regressions.md`` that can happen here has tests that name it, and the document leads to
them."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "regressions.md"
MARK = "pytest.mark.money_bug"
BUGS = range(1, 54)


class Row(msgspec.Struct, frozen=True):
    """A row of the document. ``waits`` says what the tests come with; then there are none yet."""

    number: int
    modules: set[str]
    waits: str | None


def rows_of(document: str) -> Iterator[Row]:
    for number, tests in re.findall(r"^\| (\d+) \|.*\| ([^|]*) \|$", document, re.MULTILINE):
        modules = set(re.findall(r"\]\(\.\./(tests/[\w/]+\.py)\)", tests))
        yield Row(int(number), modules, tests if tests.startswith("with ") else None)


def marked() -> dict[int, set[str]]:
    """The modules with tests that name it, for each number."""
    found: dict[int, set[str]] = defaultdict(set)
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        for number in numbers_in(file.read_text()):
            found[number].add(file.relative_to(ROOT).as_posix())
    return found


def numbers_in(source: str) -> Iterator[int]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == MARK:
            yield from (ast.literal_eval(argument) for argument in node.args)


ROWS = list(rows_of(DOCUMENT.read_text()))
MARKED = marked()


def test_the_document_has_a_row_for_each_bug_in_their_order() -> None:
    assert [row.number for row in ROWS] == list(BUGS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.number)
def test_each_row_has_a_test_that_names_it_or_says_what_it_waits_for(row: Row) -> None:
    named = MARKED[row.number]

    if row.waits is None:
        assert named, f"mark a test with @{MARK}({row.number}), or say in the row what its tests come with"
    else:
        assert not named, f"{sorted(named)} test this by now: the row must link them in place of {row.waits!r}"


@pytest.mark.parametrize("row", [row for row in ROWS if row.waits is None], ids=lambda row: row.number)
def test_each_row_links_the_modules_whose_tests_name_it_and_no_others(row: Row) -> None:
    named = MARKED[row.number]

    assert sorted(named - row.modules) == [], "link these in the row"
    assert sorted(row.modules - named) == [], f"no test there has @{MARK}({row.number}): mark one, or unlink them"


def test_no_test_names_a_bug_that_is_not_in_the_document() -> None:
    unknown = {number: sorted(modules) for number, modules in MARKED.items() if number not in BUGS}

    assert unknown == {}, "write a row for each, or correct the marks"
