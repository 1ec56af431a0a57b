"""The programs under ``prices/`` charge what their cases say, and their cases try all that they say."""

from pathlib import Path

import pytest

from pricing import Program, Span, format_program, parse_program
from pricing.cases import ExpectedPrice, UsageCase, read_cases, run_case
from pricing.lint import suspicions
from pricing.samples import edges

FOLDER = Path(__file__).parents[3] / "prices"
FILES = sorted(set(FOLDER.rglob("*.toml")) - set(FOLDER.rglob("*.cases.toml")))


def cases_of(file: Path) -> list[UsageCase]:
    return read_cases(file.with_suffix(".cases.toml").read_text())


def priced(file: Path) -> tuple[Program, list[UsageCase]]:
    return parse_program(file.read_text()), [
        case for case in cases_of(file) if isinstance(case.expected, ExpectedPrice)
    ]


def test_every_seller_has_programs_and_no_file_of_cases_is_without_its_program():
    assert {file.parent.name for file in FILES} == {"batchin", "mistral", "ruijing", "wanqing", "yuanjing"}
    assert [
        file for file in FOLDER.rglob("*.cases.toml") if file.with_name(f"{file.name[:-11]}.toml") not in FILES
    ] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_case_of_a_program_passes(file):
    program = parse_program(file.read_text())
    results = [run_case(program, case) for case in cases_of(file)]

    assert [(result.case.name, result.differences) for result in results if not result.is_passed] == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_program_stands_in_its_canonical_text_and_is_not_suspicious(file):
    program = parse_program(file.read_text())

    assert file.read_text() == format_program(program)
    assert suspicions(program) == []
    assert program.id == file.stem


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_a_hold_sets_aside_covers_every_case_known_and_not_yet_known(file):
    program, cases = priced(file)

    for case in cases:
        total = program.price(case.usage).total_microcents
        numbers = {key: value for key, value in case.usage.items() if program.keys.get(key) == "number"}
        texts = {key: frozenset(texts) for key, texts in program.definition.values.items()}
        at_most = {key: Span(0, value) for key, value in numbers.items() if key not in ("hour", "weekday")}

        assert program.bound(case.usage) == total
        assert program.bound({**case.usage, **at_most}) >= total
        assert program.bound({**case.usage, **texts}) >= total


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_cases_meet_every_charge_every_edge_and_a_usage_of_nothing(file):
    program, cases = priced(file)
    lines = [line.name for case in cases for line in program.price(case.usage).lines]
    usages = [case.usage for case in cases_of(file)]
    used = {value for usage in usages for value in usage.values() if not isinstance(value, str)}
    beside = [edge + step for among in edges(program.definition).values() for edge in among for step in (-1, 0, 1)]

    assert [charge.name for charge in program.charges if not any(name.startswith(charge.name) for name in lines)] == []
    assert [number for number in beside if number not in used] == []
    assert any(not any(usage.get(key) for key, kind in program.keys.items() if kind == "number") for usage in usages)
