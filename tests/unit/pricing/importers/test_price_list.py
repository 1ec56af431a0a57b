"""Ids of imported programs, and the command that writes them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing import parse_program
from pricing.importers.price_list import program_ids
from tests.unit.pricing.importers.lists import EXCERPTS
from tollgate.cli import main

FILE = EXCERPTS / "litellm_excerpt.json"


def status_of_import(*arguments: object) -> int:
    with pytest.raises(SystemExit) as exited:
        main(["prices", "import", *map(str, arguments)])
    assert isinstance(exited.value.code, int)
    return exited.value.code


def test_an_id_says_the_model_and_keeps_what_is_safe_in_it():
    assert program_ids(["a/b:c@1", "Qwen3-0.6B"]) == {"a/b:c@1": "a-b-c-1", "Qwen3-0.6B": "Qwen3-0.6B"}


@given(st.sets(st.text("aA/-.", min_size=1, max_size=4) | st.text(min_size=1), min_size=1))
def test_ids_are_safe_and_different_even_where_case_does_not_count(models):
    ids = program_ids(models)

    assert len({id.lower() for id in ids.values()}) == len(models)
    assert all(parse_program(f'id = "{id}"\ncurrency = "USD"\n{FREE}').id == id for id in ids.values())
    assert not any(set(id) & set("/\\:* ") or id.startswith(".") for id in ids.values())


FREE = '[[charges]]\nname = "free"\nmeter = "1"\nprice = 0\n'


def test_import_writes_a_program_for_each_model_and_says_how_many(tmp_path, capsys):
    status = status_of_import("litellm", FILE, "--out", tmp_path / "programs", "--verbose")

    assert status == 0
    printed = capsys.readouterr().out
    assert "31 models imported in 31 programs, 1 of them free" in printed
    assert "without a price  github_copilot/gpt-4o" in printed
    files = sorted(file.name for file in (tmp_path / "programs").iterdir())
    assert len(files) == 31
    assert parse_program((tmp_path / "programs" / "gpt-4o.toml").read_text()).id == "gpt-4o"


def test_a_price_that_begins_later_is_in_a_file_that_says_when(tmp_path):
    file = EXCERPTS / "genai_prices_excerpt.json"
    status_of_import("genai-prices", file, "--out", tmp_path, "--provider", "x-ai")

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "x-ai-grok-voice-latest.from-2026-08-05.toml",
        "x-ai-grok-voice-latest.toml",
    ]


def test_the_same_list_gives_the_same_files(tmp_path):
    for directory in ("one", "two"):
        status_of_import("litellm", FILE, "--out", tmp_path / directory)

    one, two = ({f.name: f.read_bytes() for f in (tmp_path / d).iterdir()} for d in ("one", "two"))
    assert one == two


@pytest.mark.parametrize("content", [b"not JSON", b"\xff", b"[]"])
def test_a_file_that_is_no_list_is_refused_in_one_line(tmp_path, capsys, content):
    (tmp_path / "list.json").write_bytes(content)

    status = status_of_import("litellm", tmp_path / "list.json", "--out", tmp_path)

    assert status == 1
    assert capsys.readouterr().err.count("\n") == 1
