"""Excerpts of the published lists, imported: every way of pricing that they have, in a few dozen models."""

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from pricing import Program, parse_program
from pricing.importers import PriceList

EXCERPTS = Path(__file__).parents[3] / "price_lists"

MICROCENTS = 10**8


def excerpt(name: str) -> Any:
    return msgspec.json.Decoder(float_hook=Decimal).decode((EXCERPTS / f"{name}_excerpt.json").read_bytes())


def programs(price_list: PriceList) -> dict[tuple[str, str | None], Program]:
    """(model, first day) → its program."""
    return {
        (each.model, each.effective_from and each.effective_from.isoformat()): parse_program(each.text)
        for each in price_list.programs
    }


def only_program(importer: Callable[..., PriceList], document: Any) -> Program:
    (imported,) = importer(document).programs
    return parse_program(imported.text)


def dollars(program: Program, **usage: object) -> Decimal:
    return Decimal(program.price(usage).total_microcents) / MICROCENTS
