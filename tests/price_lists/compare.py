"""Compares what imported programs charge with what the publishers' own calculators do: ``make compare-prices``.

Usages are random but seeded. Each side is a process of its own, and they exchange files: the publishers' packages are
never installed where Tollgate is. Exits 1 when there is a difference that no cause in ``causes.py`` explains.
"""

import argparse
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_CEILING, Decimal, InvalidOperation
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from pricing import UsageError, parse_program
from pricing.importers import ImportedProgram, PriceList, import_genai_prices, import_litellm
from tests.price_lists.causes import cause_of
from tests.price_lists.usages import random_time, random_usage

HERE = Path(__file__).parent
MICROCENTS = 10**8

#: How far their floats may be off.
RELATIVE = Decimal("1e-9")

#: No price of the lists is of later.
END = date(2026, 12, 31)
BEGIN = date(2026, 1, 1)


class Request(msgspec.Struct):
    model: str
    at: str
    usage: dict[str, Any]
    ours: int | str  # microcents, or why there is no price


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--python", default=".venv-prices/bin/python", help="where the publishers' packages are")
    parser.add_argument("--each", type=int, default=3, help="usages of each program")
    parser.add_argument("--seed", type=int, default=20261121)
    parser.add_argument("--show", type=int, default=20, help="how many unexplained differences to print")
    options = parser.parse_args()
    with TemporaryDirectory() as directory:
        unexplained = sum(compare(source, Path(directory), options) for source in ("litellm", "genai-prices"))
    sys.exit(unexplained > 0)


def compare(source: str, directory: Path, options: argparse.Namespace) -> int:
    """Compares one list and gives the number of differences that nothing explains."""
    document = published_list(source, directory, options.python)
    price_list = import_litellm(document) if source == "litellm" else import_genai_prices(document)
    requests = list(random_requests(price_list, Random(options.seed), options.each))
    theirs = their_prices(source, requests, directory, options.python)
    causes = Counter[str]()
    unexplained = []
    for request, (price, *general) in zip(requests, theirs, strict=True):
        cause: str | None = "equal"
        if not is_equal(request.ours, price):
            is_general = any(is_equal(request.ours, each) for each in general)
            cause = cause_of(request.model, document, request.usage, is_general=is_general) if general else None
        causes[cause or "unexplained"] += 1
        if cause is None:
            unexplained.append((request, price))
    print(f"{source}: {len(requests)} usages of {len(price_list.programs)} programs")
    for cause, count in causes.most_common():
        print(f"  {count:6}  {cause}")
    for request, price in unexplained[: options.show]:
        print(f"  {request.model}  {request.usage}\n    ours {request.ours} microcents, theirs {price}")
    return len(unexplained)


def published_list(source: str, directory: Path, python: str) -> Any:
    if source == "litellm":
        where = "import importlib.util as u; print(u.find_spec('litellm').submodule_search_locations[0])"
        package = subprocess.run([python, "-c", where], check=True, capture_output=True, text=True).stdout.strip()
        file = Path(package) / "model_prices_and_context_window_backup.json"
    else:
        file = directory / "genai-prices.json"
        subprocess.run([python, HERE / "genai_prices_side.py", "list", file], check=True)
    return msgspec.json.Decoder(float_hook=Decimal).decode(file.read_bytes())


def random_requests(price_list: PriceList, random: Random, each: int) -> Iterator[Request]:
    for imported, end in with_ends(price_list):
        program = parse_program(imported.text)
        start = imported.effective_from or min(BEGIN, end - timedelta(days=30))
        for _ in range(each):
            at = random_time(random, midnight(start), midnight(end))
            usage = random_usage(program, random, at)
            try:
                ours: int | str = program.price(usage).total_microcents
            except UsageError as error:
                ours = str(error)
            yield Request(imported.model, at.isoformat(), usage, ours)


def with_ends(price_list: PriceList) -> Iterator[tuple[ImportedProgram, date]]:
    """Each program with the day on which the next of the same model begins."""
    programs = price_list.programs
    for program, following in zip(programs, [*programs[1:], None], strict=True):
        replaced = following is not None and following.model == program.model
        yield program, (following.effective_from if replaced and following else None) or END


def midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def their_prices(source: str, requests: list[Request], directory: Path, python: str) -> list[list[float | str]]:
    """For each request what the publisher charges, and for LiteLLM what its calculator for all providers does."""
    usages, prices = directory / f"{source}-usages.json", directory / f"{source}-prices.json"
    usages.write_bytes(msgspec.json.encode(requests))
    side = HERE / f"{source.replace('-', '_')}_side.py"
    arguments = [usages, prices] if source == "litellm" else ["price", usages, prices]
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "CRITICAL", "PATH": ""}
    subprocess.run([python, side, *arguments], check=True, env=environment)
    return list(json.loads(prices.read_text()))


def is_equal(ours: int | str, theirs: float | str) -> bool:
    """Whether ours is theirs, rounded up to the microcent, give or take what a float loses."""
    if isinstance(ours, str):
        return False
    try:
        exact = Decimal(repr(theirs) if isinstance(theirs, float | int) else theirs) * MICROCENTS
    except InvalidOperation:
        return False
    lowest, highest = (exact * (1 + sign * RELATIVE) for sign in (-1, 1))
    return lowest.to_integral_value(ROUND_CEILING) <= ours <= highest.to_integral_value(ROUND_CEILING)


if __name__ == "__main__":
    main()
