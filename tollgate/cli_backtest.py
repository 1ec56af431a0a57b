"""``tollgate prices``, the past: price the usage of a period by another program, and correct what was charged wrong."""

import argparse
import csv
import getpass
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from ledger import Ledger, Microcents, PriceRef, units_text
from ledger.charges import ChargesAsked, StoredCharge, charges
from ledger.reading import count_shards, head_position
from pricing import PricedProgram, parse_program
from pricing.backtest import Backtest, Revenue, models_priced_by
from pricing.backtest_chart import chart_of, require_chart
from pricing.publishing import read_price_book
from pricing.repricing import Repricing
from pricing.rerating import Leftovers, Rerating, carry_out
from tollgate.app import utc_now
from tollgate.cli_price_book import moment, version_named
from tollgate.database import connect, connect_as_owner, create_pool, database
from tollgate.settings import load_settings

#: Accounts that win or lose most, as the terminal shows them; the CSV has them all.
SHOWN = 10

COLUMNS = ("view", "name", "currency", "usages", "before", "after", "difference")


def add_commands(prices: Any) -> None:
    """Add this module's commands to ``tollgate prices``."""
    backtest = prices.add_parser("backtest", help="what the usage of a period would have brought under a program")
    backtest.add_argument("file", type=Path, metavar="NEW.toml")
    backtest.add_argument("--to", dest="until", type=moment, required=True, help="RFC 3339, not included")
    backtest.add_argument("--model", help="default: the models that the program's id is assigned to")
    backtest.add_argument("--operation")
    backtest.add_argument("--csv", type=Path, help="write every sum of every view")
    backtest.add_argument("--chart", type=Path, help="draw revenue by day, before and after: .svg or .png")
    backtest.set_defaults(run=_backtest)
    rerate = prices.add_parser("rerate", help="charge usage by another version than the wrong one that charged it")
    rerate.add_argument("wrong", metavar="PROGRAM@VERSION", type=version_named)
    rerate.add_argument("--to", dest="right", metavar="PROGRAM@VERSION", type=version_named, required=True)
    rerate.add_argument("--to-time", dest="until", type=moment, required=True, help="RFC 3339, not included")
    rerate.add_argument("--apply", action="store_true", help="post the corrections; without it they are only shown")
    rerate.add_argument("--plan", help="apply only if the plan is still the one of this id")
    rerate.add_argument("--reason", help="why; on every correction")
    rerate.add_argument("--by", help="who does it (default: you)")
    rerate.set_defaults(run=_rerate)
    for command in (backtest, rerate):
        command.add_argument("--from", dest="start", type=moment, required=True, help="RFC 3339, of the charge")
        command.add_argument("--account")


async def _backtest(options: argparse.Namespace) -> None:
    program = parse_program(options.file.read_text())
    if options.chart:
        require_chart(options.chart.suffix)
    async with _opened(options) as (ledger, connection):
        book = await read_price_book(ledger)
        models = [options.model] if options.model else models_priced_by(book, program.id)
        if not models:
            raise ValueError(f"{program.id} was never assigned to a model: say --model")
        asked = ChargesAsked(
            start=options.start,
            until=options.until,
            account_id=options.account,
            models=models,
            operation=options.operation,
        )
        candidate = PricedProgram(program, PriceRef(program=program.id, version=0, digest=program.digest))
        backtest = Backtest(Repricing(candidate, book))
        async for batch in _read(connection, asked):
            backtest.add(batch)
    _show_backtest(Console(), backtest)
    if options.csv:
        _write_csv(options.csv, backtest)
    if options.chart:
        options.chart.write_bytes(chart_of(backtest, program, options.chart.suffix))


async def _rerate(options: argparse.Namespace) -> int:
    if options.apply and not options.reason:
        raise ValueError("--apply needs a --reason: it is written on every correction")
    async with _opened(options) as (ledger, connection):
        book = await read_price_book(ledger)
        wrong, right = (book.program(*version) for version in (options.wrong, options.right))
        asked = ChargesAsked(
            start=options.start, until=options.until, account_id=options.account, priced_by=options.wrong
        )
        rerating = Rerating(wrong.ref, right, book)
        async for batch in _read(connection, asked):
            rerating.add(batch)
        _show_rerating(Console(), rerating)
        if options.plan is not None and options.plan != rerating.digest:
            raise ValueError(f"the plan is {rerating.digest} by now, not {options.plan}: look again")
        if not options.apply:
            return 0
        refused = Leftovers()
        corrected = 0
        async for batch in _read(connection, asked):
            corrected += await carry_out(
                ledger,
                rerating.to_correct(batch),
                right.ref,
                reason=options.reason,
                rerated_by=options.by or getpass.getuser(),
                refused=refused,
            )
    print(f"corrected {corrected} charges by plan {rerating.digest}")
    _show_left("refused", refused)
    return 1 if refused.by_reason else 0


@asynccontextmanager
async def _opened(options: argparse.Namespace) -> AsyncIterator[tuple[Ledger, asyncpg.Connection]]:
    """The ledger, and a connection that reads one snapshot of it, however long that takes."""
    if options.start >= options.until:
        raise ValueError("the period is empty: --from is not before its end")
    async with database(load_settings(options.config)) as url:
        pool = await create_pool(url)
        ledger = await Ledger.open(pool, lambda: connect(url), utc_now)
        connection = await connect_as_owner(url)
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                yield ledger, connection
        finally:
            await connection.close()
            await ledger.close()
            await pool.close()


async def _read(connection: asyncpg.Connection, asked: ChargesAsked) -> AsyncIterator[list[StoredCharge]]:
    """The charges of every shard in batches, with a progress bar over the log."""
    heads = [await head_position(connection, shard) for shard in range(await count_shards(connection))]
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("log", total=sum(heads))
        done = 0
        for shard, head in enumerate(heads):
            async for batch in charges(connection, shard, asked):
                yield batch
                bar.update(task, completed=done + batch[-1].position)
            done += head
            bar.update(task, completed=done)


def _show_backtest(console: Console, backtest: Backtest) -> None:
    if not backtest.totals and not backtest.unpriced:
        print("no usage")
    _show(console, "revenue", [(currency, currency, revenue) for currency, revenue in sorted(backtest.totals.items())])
    for title, view in (("model", backtest.models), ("day", backtest.days)):
        rows = [(str(name), currency, revenue) for (currency, name), revenue in sorted(view.items())]
        _show(console, f"by {title}", rows)
    for title, accounts in (("pay more", backtest.losers), ("pay less", backtest.winners)):
        shown = [(account, currency, revenue) for (currency, account), revenue in accounts[:SHOWN]]
        _show(console, f"accounts that {title}: {len(accounts)}", shown)
    for (currency, reason), unpriced in backtest.unpriced.items():
        brought = units_text(Microcents(unpriced.before), currency)
        print(f"not priced: {unpriced.usages} usages that brought {brought}: {reason} (hold {unpriced.example})")


def _show(console: Console, title: str, rows: Iterable[tuple[str, str, Revenue]]) -> None:
    table = Table(title=title, title_justify="left")
    table.add_column("", overflow="fold")
    for column in COLUMNS[3:]:
        table.add_column(column, justify="right")
    for name, currency, revenue in rows:
        amounts = (revenue.before, revenue.after, revenue.difference)
        table.add_row(name, f"{revenue.usages:,}", *(units_text(Microcents(amount), currency) for amount in amounts))
    if table.rows:
        console.print(table)


def _write_csv(file: Path, backtest: Backtest) -> None:
    with file.open("w", newline="") as text:
        table = csv.writer(text)
        table.writerow(COLUMNS)
        table.writerows(_csv_rows(backtest))


def _csv_rows(backtest: Backtest) -> Iterator[tuple[object, ...]]:
    """Amounts are exact decimals in the currency's major unit."""
    named = [
        *(("total", currency, "", revenue) for currency, revenue in backtest.totals.items()),
        *(("account", currency, name, revenue) for (currency, name), revenue in sorted(backtest.accounts.items())),
        *(("model", currency, name, revenue) for (currency, name), revenue in sorted(backtest.models.items())),
        *(("day", currency, str(day), revenue) for (currency, day), revenue in sorted(backtest.days.items())),
    ]
    for view, currency, name, revenue in named:
        amounts = (revenue.before, revenue.after, revenue.difference)
        yield view, name, currency, revenue.usages, *(_units(amount, currency) for amount in amounts)
    for (currency, reason), unpriced in backtest.unpriced.items():
        yield "not priced", reason, currency, unpriced.usages, _units(unpriced.before, currency), "", ""


def _units(amount: int, currency: str) -> str:
    return units_text(Microcents(amount), currency).removesuffix(f" {currency}")


def _show_rerating(console: Console, rerating: Rerating) -> None:
    table = Table(title="what the re-rating does", title_justify="left")
    table.add_column("account", overflow="fold")
    for column in ("charges", "corrected", "to correct", "before", "after", "difference"):
        table.add_column(column, justify="right")
    for account, effect in sorted(rerating.effects.items()):
        amounts = (effect.before, effect.after, effect.after - effect.before)
        table.add_row(
            account,
            *(f"{count:,}" for count in (effect.charges, effect.corrected, effect.to_correct)),
            *(units_text(Microcents(amount), effect.currency) for amount in amounts),
        )
    console.print(table)
    _show_left("not corrected", rerating.left)
    print(f"plan {rerating.digest}")


def _show_left(what: str, left: Leftovers) -> None:
    for (account, reason), some in left.by_reason.items():
        print(f"{what}: {some.charges} of {account}: {reason} (hold {some.example})")
