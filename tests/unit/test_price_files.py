"""``tollgate prices`` on files: what it prints, and when it exits with 1."""

from pathlib import Path

import pytest

from tests.unit.pricing.programs import CHAT
from tollgate.cli import main

CASES = """
[[cases]]
name = "a chat"
usage = { input_tokens = 1000, output_tokens = 500, mode = "normal" }
total = 0.0003
"""


@pytest.fixture
def program(tmp_path: Path) -> Path:
    file = tmp_path / "chat.toml"
    file.write_text(CHAT)
    return file


def status_of(*arguments: object) -> int:
    with pytest.raises(SystemExit) as exited:
        main(["prices", *map(str, arguments)])
    assert isinstance(exited.value.code, int)
    return exited.value.code


def test_lint_names_file_line_and_column_of_each_mistake_and_fails(program, capsys):
    broken = program.with_name("broken.toml")
    broken.write_text(CHAT.replace("price = 0.15", "prize = 0.15"))

    status = status_of("lint", program, broken)

    assert status == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"{program}: qwen3-32b, 3 charges in USD"
    assert second.startswith(f"{broken}:15:1: ")


def test_lint_tells_suspicions_without_failing(program, capsys):
    program.write_text(CHAT.replace("price = 0.15\nper = 1_000_000", "price = 0.15"))

    assert status_of("lint", program) == 0
    assert capsys.readouterr().out == (
        f"{program}:15:9: suspicious: one of input_tokens costs 0.15 USD: is 'per' missing?\n"
    )


def test_lint_reads_cases_as_cases(program, capsys):
    cases = program.with_name("chat.cases.toml")
    cases.write_text(CASES)
    assert status_of("lint", cases) == 0

    cases.write_text(CASES.replace("total", "totl"))
    assert status_of("lint", cases) == 1
    assert f"{cases}:5:1: unknown key 'totl'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("total", "status", "printed"),
    [
        ("0.0003", 0, "1 of 1 cases passed"),
        ("0.0004", 1, "'a chat' costs 0.0003 USD, not 0.0004 USD\n{program}: 0 of 1 cases passed"),
    ],
)
def test_the_cases_beside_a_program_pass_or_fail(program, capsys, total, status, printed):
    program.with_name("chat.cases.toml").write_text(CASES.replace("0.0003", total))

    assert status_of("test", program) == status
    assert printed.format(program=program) in capsys.readouterr().out


def test_cases_can_stand_elsewhere_and_must_stand_somewhere(program, tmp_path, capsys):
    elsewhere = tmp_path / "elsewhere.toml"
    elsewhere.write_text(CASES)

    assert status_of("test", program, "--cases", elsewhere) == 0
    assert status_of("test", program) == 1
    assert "chat.cases.toml" in capsys.readouterr().err


def test_a_usage_is_priced_line_by_line(program, capsys):
    usage = '{"input_tokens": 1234.5, "cached_input_tokens": 512, "output_tokens": 777, "mode": "normal"}'

    assert status_of("test", program, "--usage", usage) == 0
    assert capsys.readouterr().out == (
        "input         722.5  × 0.00000015  0.00010838 USD\n"
        "cached input    512  × 0.00000003  0.00001536 USD\n"
        "output          777   × 0.0000003   0.0002331 USD\n"
        "total                              0.00035684 USD\n"
    )


@pytest.mark.parametrize(
    ("usage", "status", "printed"),
    [
        ('{"input_tokens": 1, "mode": "normal"}', 1, "output_tokens: is missing"),
        ("[]", 2, "a JSON object of usage keys is needed"),
        ("{", 2, "not JSON: Expecting property name"),
    ],
)
def test_a_usage_that_cannot_be_priced_is_told_in_one_line(program, capsys, usage, status, printed):
    assert status_of("test", program, "--usage", usage) == status
    assert printed in capsys.readouterr().err


def test_diff_shows_the_text_and_how_far_each_price_moves(program, capsys):
    other = program.with_name("other.toml")
    other.write_text(
        CHAT.replace("price = 0.15", "price = 0.45").replace('"cached input"', '"cache"').replace("0.60", "0.20")
    )

    assert status_of("diff", program, other) == 0
    text, table = capsys.readouterr().out.split(" " * 20, maxsplit=1)
    assert "-price = 0.15\n+price = 0.45\n" in text
    rows = {" ".join(cells[:-3]): cells[-3:] for line in table.splitlines()[1:] if (cells := line.split())}
    assert rows["input"] == ["0.00000015", "0.00000045", "3"]
    assert rows["output, mode == 'thinking'"] == ["0.0000006", "0.0000002", "0.3333"]
    assert rows["output, otherwise"] == ["0.0000003", "0.0000003", "1"]
    assert table.count("gone") == table.count("new") == 1
    assert "whole price of input_tokens=" in table


def test_a_program_that_does_not_parse_is_named_with_its_file(program, capsys):
    broken = program.with_name("broken.toml")
    broken.write_text("id = 1")

    assert status_of("diff", program, broken) == 1
    assert f"tollgate: {broken}:1:1: " in capsys.readouterr().err


def test_a_chart_is_written_as_svg(program):
    out = program.with_suffix(".svg")

    assert status_of("chart", program, "--out", out, "--usage", '{"mode": "thinking"}') == 0
    assert out.read_text().startswith("<?xml")
    assert ">input_tokens<" in out.read_text()


def test_a_chart_is_drawn_as_svg_only(program, capsys):
    status = status_of("chart", program, "--out", program.with_suffix(".png"))

    assert (status, program.with_suffix(".png").exists()) == (1, False)
    assert "svg" in capsys.readouterr().err
