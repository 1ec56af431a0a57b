"""``tollgate prices``, the book: publish a program, let it price a model, retire it, and see what is in force."""

import argparse
import csv
import getpass
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ledger.events import ProgramAssigned, ProgramPublished, ProgramRetired, RatePublished
from pricing import PriceBook
from pricing.publishing import assign, publish, publish_rate, read_price_book, retire
from tollgate.app import utc_now
from tollgate.cli_accounts import exact_number, moment, open_ledger
from tollgate.settings import load_settings

#: "Now" is a moment ahead, so that it is not over when it is written.
NOW_IS_IN = timedelta(seconds=1)

ASSIGNMENT_COLUMNS = ("model", "operation", "plan", "account_id", "program", "version", "effective_from",
                      "effective_until", "assigned_by")  # fmt: skip


def add_commands(prices: Any) -> None:
    """Add this module's commands to ``tollgate prices``."""
    new = prices.add_parser("publish", help="publish a program as its next version")
    new.add_argument("file", type=Path)
    new.set_defaults(run=_publish)
    assignment = prices.add_parser("assign", help="let a published version price a model")
    assignment.add_argument("version", metavar="PROGRAM@VERSION", type=version_named)
    assignment.add_argument("model")
    assignment.add_argument("--operation", help="only this operation, e.g. chat.completions (default: all)")
    whom = assignment.add_mutually_exclusive_group()
    whom.add_argument("--plan", help="only accounts on this plan (default: the list price)")
    whom.add_argument("--account", help="only this account")
    assignment.add_argument("--until", type=moment, help="RFC 3339 (default: without end)")
    assignment.set_defaults(run=_assign)
    retirement = prices.add_parser("retire", help="end all assignments of a version")
    retirement.add_argument("version", metavar="PROGRAM@VERSION", type=version_named)
    retirement.set_defaults(run=_retire)
    rate = prices.add_parser("rate", help="convert prices of one currency for accounts in another")
    rate.add_argument("currency", help="of the programs, e.g. CNY")
    rate.add_argument("account_currency", help="of the accounts, e.g. USD")
    rate.add_argument("rate", type=exact_number, help="units of the account's currency for one of the program's")
    rate.set_defaults(run=_rate)
    for command in (new, assignment, rate):
        command.add_argument("--confirm", action="store_true", help="a price that jumps more than tenfold is meant")
    for command in (assignment, retirement, rate):
        command.add_argument("--from", dest="start", type=moment, help="RFC 3339 (default: now)")
    for command in (new, assignment, retirement, rate):
        command.add_argument("--by", default=None, help="who does it (default: you)")
    show = prices.add_parser("show", help="what prices each model, or the text of one version")
    show.add_argument("version", metavar="PROGRAM@VERSION", type=version_named, nargs="?")
    show.add_argument("--at", type=moment, help="as of this moment, RFC 3339 (default: now)")
    show.add_argument("--plan")
    show.add_argument("--account")
    show.set_defaults(run=_show)
    history = prices.add_parser("history", help="everything that happened to the book")
    history.add_argument("--model")
    history.add_argument("--program")
    history.set_defaults(run=_history)
    export = prices.add_parser("export", help="write every version and assignment into a folder")
    export.add_argument("directory", type=Path)
    export.set_defaults(run=_export)


def version_named(text: str) -> tuple[str, int]:
    """``id@version`` as the pair. Raises argparse's error for anything else."""
    program, _, version = text.rpartition("@")
    if not program or not version.isascii() or not version.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no program version: id@version")
    return program, int(version)


def file_of(program: str, version: int) -> str:
    """The name of an exported version; an id may have characters that would lead a file elsewhere."""
    return f"{quote(program, safe='')}@{version}.toml"


async def _publish(options: argparse.Namespace) -> None:
    text = options.file.read_text(encoding="utf-8")
    async with open_ledger(load_settings(options.config)) as ledger:
        published = await publish(ledger, text, published_by=_person(options), confirmed=options.confirm)
    print(f"{published.program}@{published.version}  {published.digest}")


async def _assign(options: argparse.Namespace) -> None:
    settings = load_settings(options.config)
    program, version = options.version
    now = utc_now()
    assignment = ProgramAssigned(
        program=program,
        version=version,
        model=options.model,
        operation=options.operation,
        plan=options.plan,
        account_id=options.account,
        effective_from=options.start or now + NOW_IS_IN,
        effective_until=options.until,
        assigned_by=_person(options),
    )
    async with open_ledger(settings) as ledger:
        await assign(ledger, assignment, now=now, confirmed=options.confirm, two_people=settings.prices.two_people)
    print(_told(assignment))


async def _retire(options: argparse.Namespace) -> None:
    program, version = options.version
    now = utc_now()
    retirement = ProgramRetired(
        program=program, version=version, effective_from=options.start or now + NOW_IS_IN, retired_by=_person(options)
    )
    async with open_ledger(load_settings(options.config)) as ledger:
        await retire(ledger, retirement, now=now)
    print(_told(retirement))


async def _rate(options: argparse.Namespace) -> None:
    now = utc_now()
    rate = RatePublished(
        currency=options.currency,
        account_currency=options.account_currency,
        rate=options.rate,
        effective_from=options.start or now + NOW_IS_IN,
        published_by=_person(options),
    )
    async with open_ledger(load_settings(options.config)) as ledger:
        await publish_rate(ledger, rate, now=now, confirmed=options.confirm)
    print(_told(rate))


async def _show(options: argparse.Namespace) -> None:
    book = await _read(options)
    if options.version is not None:
        print(book.published(*options.version).text, end="")
        return
    in_effect = book.in_effect(options.at or utc_now(), plan=options.plan, account_id=options.account)
    for model, operation, priced in in_effect:
        named = f"{priced.ref.program}@{priced.ref.version}"
        print(f"{model}  {operation or 'every operation'}  {named}  {priced.program.currency}")


async def _history(options: argparse.Namespace) -> None:
    book = await _read(options)
    for stored in book.history(model=options.model, program=options.program):
        print(f"{_time(stored.at)}  {_told(stored.event)}")


async def _export(options: argparse.Namespace) -> None:
    book = await _read(options)
    options.directory.mkdir(parents=True, exist_ok=True)
    events = [stored.event for stored in book.history()]
    programs = [event for event in events if isinstance(event, ProgramPublished)]
    for event in programs:
        (options.directory / file_of(event.program, event.version)).write_text(event.text, encoding="utf-8")
    assignments = [event for event in events if isinstance(event, ProgramAssigned)]
    with (options.directory / "assignments.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(ASSIGNMENT_COLUMNS)
        for assigned in assignments:
            table.writerow([_cell(getattr(assigned, column)) for column in ASSIGNMENT_COLUMNS])
    print(f"{len(programs)} versions and {len(assignments)} assignments")


async def _read(options: argparse.Namespace) -> PriceBook:
    async with open_ledger(load_settings(options.config)) as ledger:
        return await read_price_book(ledger)


def _person(options: argparse.Namespace) -> str:
    return str(options.by or getpass.getuser())


def _told(event: Any) -> str:
    """An event of the book in one line."""
    return "  ".join(_words(event))


def _words(event: Any) -> Iterator[str]:
    match event:
        case ProgramPublished():
            yield f"{event.program}@{event.version} published by {event.published_by}"
            yield event.digest[:12]
        case ProgramAssigned():
            whom = event.account_id or (f"plan {event.plan}" if event.plan else "everybody")
            yield f"{event.program}@{event.version} prices {event.model}"
            yield event.operation or "every operation"
            yield f"for {whom} from {_time(event.effective_from)}"
            if event.effective_until is not None:
                yield f"until {_time(event.effective_until)}"
            yield f"by {event.assigned_by}"
        case ProgramRetired():
            yield f"{event.program}@{event.version} retired from {_time(event.effective_from)} by {event.retired_by}"
        case RatePublished():
            yield f"1 {event.currency} = {event.rate} {event.account_currency}"
            yield f"from {_time(event.effective_from)} by {event.published_by}"


def _time(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _cell(value: object) -> object:
    return _time(value) if isinstance(value, datetime) else value
