"""``tollgate prices``, the book: publish a program, let it price a model, and see what is in force."""

import argparse
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ledger.events import ProgramAssigned
from pricing.publishing import assign, publish, read_price_book
from tollgate.app import utc_now
from tollgate.cli_accounts import OPERATOR, open_ledger
from tollgate.settings import load_settings

#: "Now" is a moment ahead, so that it is not over when it is written.
NOW_IS_IN = timedelta(seconds=1)


def add_commands(prices: Any) -> None:
    """Add this module's commands to ``tollgate prices``."""
    new = prices.add_parser("publish", help="publish a program as its next version")
    new.add_argument("file", type=Path)
    new.set_defaults(run=_publish)
    assignment = prices.add_parser("assign", help="let a published version price a model")
    assignment.add_argument("program", help="id@version")
    assignment.add_argument("model")
    assignment.add_argument("--operation", help="only this operation, e.g. chat.completions (default: all)")
    assignment.add_argument("--account", help="only this account (default: the list price)")
    assignment.add_argument("--from", dest="start", type=datetime.fromisoformat, help="RFC 3339 (default: now)")
    assignment.set_defaults(run=_assign)
    show = prices.add_parser("show", help="what prices each model now")
    show.set_defaults(run=_show)


async def _publish(options: argparse.Namespace) -> None:
    text = options.file.read_text()
    async with open_ledger(load_settings(options.config)) as ledger:
        published = await publish(ledger, text, published_by=OPERATOR)
    print(f"{published.program}@{published.version}  {published.digest}")


async def _assign(options: argparse.Namespace) -> None:
    program, _, version = options.program.rpartition("@")
    if not program or not version.isdecimal():
        raise ValueError(f"{options.program!r} is no program version: id@version")
    now = utc_now()
    start = options.start or now + NOW_IS_IN
    assignment = ProgramAssigned(
        program=program,
        version=int(version),
        model=options.model,
        operation=options.operation,
        account_id=options.account,
        effective_from=start if start.tzinfo else start.replace(tzinfo=UTC),
        assigned_by=OPERATOR,
    )
    async with open_ledger(load_settings(options.config)) as ledger:
        await assign(ledger, assignment, now=now)
    print(f"{options.program} prices {options.model} from {assignment.effective_from:%Y-%m-%dT%H:%M:%SZ}")


async def _show(options: argparse.Namespace) -> None:
    async with open_ledger(load_settings(options.config)) as ledger:
        book = await read_price_book(ledger)
    for model in book.models(utc_now()):
        for stored in book.history(model=model):
            if isinstance(stored.event, ProgramAssigned):
                event = stored.event
                whom = event.account_id or event.plan or "everybody"
                print(
                    f"{model}  {event.operation or 'every operation'}  {event.program}@{event.version}  for {whom}"
                    f"  from {event.effective_from:%Y-%m-%dT%H:%M:%SZ}"
                )
