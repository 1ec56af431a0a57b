"""``tollgate prices import``: the programs of a published price list, one file for each."""

import argparse
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec

from pricing.importers import ImportedProgram, PriceList, import_genai_prices, import_litellm, import_wanqing

SOURCES: dict[str, Callable[..., PriceList]] = {
    "litellm": import_litellm,
    "genai-prices": import_genai_prices,
    "wanqing": import_wanqing,
}

#: Numbers come as the list writes them, never by way of a float.
_decode = msgspec.json.Decoder(float_hook=Decimal).decode


def add_commands(prices: Any) -> None:
    """Add this module's commands to ``tollgate prices``."""
    command = prices.add_parser("import", help="write the programs of a published price list")
    command.add_argument("source", choices=SOURCES)
    command.add_argument("file", type=Path, help="the list, as JSON")
    command.add_argument("--out", type=Path, required=True, help="directory for the programs")
    command.add_argument("--provider", help="only the models of this provider, as the list names it")
    command.add_argument("--verbose", action="store_true", help="name all that is without a price or not expressed")
    command.set_defaults(run=_import)


def _import(options: argparse.Namespace) -> None:
    price_list = SOURCES[options.source](_read(options.file), provider=options.provider)
    options.out.mkdir(parents=True, exist_ok=True)
    for program in price_list.programs:
        (options.out / file_name(program)).write_text(program.text, encoding="utf-8")
    _report(price_list, verbose=options.verbose)


def _read(file: Path) -> Any:
    try:
        return _decode(file.read_bytes())
    except msgspec.DecodeError as error:
        raise ValueError(f"{file} is not JSON: {error}") from None


def file_name(program: ImportedProgram) -> str:
    """The name of the program's file; a price that begins later says when."""
    return f"{program.id}{f'.from-{program.effective_from}' if program.effective_from else ''}.toml"


def _report(price_list: PriceList, *, verbose: bool) -> None:
    imported = {program.model for program in price_list.programs}
    free = {program.model for program in price_list.programs if program.is_free}
    lost = {each.model for each in price_list.not_expressed} - imported
    print(f"{len(imported)} models imported in {len(price_list.programs)} programs, {len(free)} of them free")
    print(f"{len(price_list.unpriced)} models without a price in the list")
    print(f"{len(lost)} models not expressed, {len(price_list.not_expressed)} single prices left out")
    if verbose:
        for model in price_list.unpriced:
            print(f"without a price  {model}")
        for each in price_list.not_expressed:
            print(f"not expressed  {each.model}  {each.what}: {each.reason}")
