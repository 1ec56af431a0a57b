"""The documents say what is so."""

import os
import re
import subprocess
import sys
from decimal import Decimal
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from ledger.money import MICROCENTS_PER_UNIT
from pricing import Program, UsageError, parse_program
from tollgate.settings import VARIABLES, Settings

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def setting_names(kind: type, prefix: str = "") -> list[str]:
    """Every setting as docs/settings.md names it: server.port, models[].id."""
    names = []
    for field in msgspec.inspect.type_info(kind).fields:
        inner = field.type
        item = getattr(inner, "item_type", None)
        if isinstance(inner, msgspec.inspect.StructType):
            names += setting_names(inner.cls, f"{prefix}{field.encode_name}.")
        elif isinstance(item, msgspec.inspect.StructType):
            names += setting_names(item.cls, f"{prefix}{field.encode_name}[].")
        else:
            names.append(prefix + field.encode_name)
    return names


def test_every_setting_is_documented() -> None:
    text = (ROOT / "docs" / "settings.md").read_text()

    missing = [name for name in (*setting_names(Settings), *VARIABLES) if f"`{name}`" not in text]

    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_of_a_document_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text())

    assert [link for link in links if not (document.parent / link).exists()] == []


PRICES = (ROOT / "docs" / "pricing.md").read_text()

#: Commands that need nothing but files, so that what the document shows of them can be tried.
OFFLINE = {"lint", "test", "diff", "chart"}


class Snippet(msgspec.Struct, frozen=True):
    language: str
    text: str
    after: str  # the document from here to the next snippet


def snippets() -> list[Snippet]:
    parts = re.split(r"^```(\w*)\n(.*?)^```$", PRICES, flags=re.DOTALL | re.MULTILINE)[1:]
    return [Snippet(*parts[at : at + 3]) for at in range(0, len(parts), 3)]


def commands(shell: str) -> set[str]:
    return set(re.findall(r"tollgate prices (\w+)", shell))


def program_of(snippet: str) -> Program:
    """The document leaves out the head of all but a few programs."""
    return parse_program(snippet if snippet.startswith("id = ") else f'id = "p"\ncurrency = "USD"\n{snippet}')


PROGRAMS = [each for each in snippets() if each.language == "toml" and "[[cases]]" not in each.text]

#: Commands on files, and the snippet after them, which shows what they print.
SHOWN = [
    (each.text, following.text)
    for each, following in pairwise(snippets())
    if each.language == "sh" and commands(each.text) <= OFFLINE
]


def amounts(after: str) -> list[tuple[dict[str, int | Decimal | str | bool], str]]:
    """The rows of the next table if it ends in what a usage costs. A usage lacks the keys whose cells are empty."""
    table = re.search(r"(?:^\|.*\|\n)+", after, re.MULTILINE)
    rows = [[cell.strip() for cell in row[1:-1].split("|")] for row in table[0].splitlines()] if table else [[""]]
    if rows[0][-1] != "costs":
        return []
    keys = [cell.strip("`") for cell in rows[0][:-1]]
    return [
        ({key: usage_value(cell) for key, cell in zip(keys, cells, strict=False) if cell}, cells[-1])
        for cells in rows[2:]
    ]


def usage_value(cell: str) -> int | Decimal | str | bool:
    if cell in ("true", "false"):
        return cell == "true"
    return Decimal(cell) if re.fullmatch(r"[\d.]+", cell) else cell


@pytest.mark.parametrize("snippet", PROGRAMS, ids=range(len(PROGRAMS)))
def test_a_program_of_the_price_document_parses_and_costs_what_its_table_says(snippet: Snippet) -> None:
    program = program_of(snippet.text)

    for usage, costs in amounts(snippet.after):
        if costs == "refused":
            with pytest.raises(UsageError):
                program.price(usage)
        else:
            assert program.price(usage).total_microcents == Decimal(costs) * MICROCENTS_PER_UNIT, usage


def test_the_receipt_of_the_price_document_has_the_lines_of_the_program() -> None:
    first = PROGRAMS[0]
    stated = re.search(r"= ([\d,]+) microcents", first.after)
    rows = re.findall(r"^\| ([\w ]+) \| (\d+) \| [\d./, ]+ \| ([\d.]+) \|$", first.after, re.MULTILINE)

    price = program_of(first.text).price({"input_tokens": 1234, "cached_input_tokens": 512, "output_tokens": 777})

    assert [(line.name, line.quantity, line.amount_microcents) for line in price.lines] == [
        (name, quantity, Decimal(amount) * MICROCENTS_PER_UNIT) for name, quantity, amount in rows
    ]
    assert stated is not None
    assert int(stated[1].replace(",", "")) == price.total_microcents


def test_the_price_document_shows_what_its_commands_on_files_print(tmp_path: Path) -> None:
    (cases,) = (each.text for each in snippets() if "[[cases]]" in each.text)
    (tmp_path / "qwen3-32b.toml").write_text(PROGRAMS[0].text)
    (tmp_path / "qwen3-32b.cases.toml").write_text(cases)
    (tmp_path / "prices").symlink_to(ROOT / "prices")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    for shell, shown in SHOWN:
        ran = subprocess.run(
            ["sh", "-e", "-c", shell], cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True
        )
        assert (ran.returncode, ran.stdout) == (0, shown), ran.stderr
    assert set().union(*(commands(shell) for shell, _ in SHOWN)) == OFFLINE


def test_the_price_document_has_amounts_for_every_field_of_a_charge_and_of_an_adjustment() -> None:
    tried = "".join(snippet.text for snippet in PROGRAMS if amounts(snippet.after))

    fields = ("when", "free", "prices", "tiers", "tier_by", "tier_after", "factor", "minimum", "maximum", "mode")
    assert [field for field in fields if not re.search(rf"\b{field} = ", tried)] == []
