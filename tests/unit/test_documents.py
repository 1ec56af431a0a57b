"""The documents say what is so."""

import re
from pathlib import Path

import msgspec
import pytest

from pricing import parse_program
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


def test_the_example_of_the_price_document_costs_what_it_says() -> None:
    text = (ROOT / "docs" / "pricing.md").read_text()
    program = parse_program(re.findall(r"```toml\n(.*?)```", text, re.DOTALL)[0])
    stated = re.search(r"= ([\d,]+) microcents", text)

    usage = {"input_tokens": 1234, "cached_input_tokens": 512, "output_tokens": 777, "reasoning_tokens": 0}

    assert stated is not None
    assert int(stated[1].replace(",", "")) == program.price(usage).total_microcents
