"""``tollgate prices backtest``: what the usage of a period would have brought under another program."""

import argparse
import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ledger import Microcents, PriceRef, units_text
from ledger.charges import ChargesAsked
from pricing import PricedProgram, parse_program
from pricing.backtest import Backtest, Revenue, models_priced_by
from pricing.backtest_chart import chart_of, require_chart
from pricing.publishing import read_price_book
from pricing.repricing import Repricing
from tollgate.cli_accounts import moment
from tollgate.past_charges import opened, read_charges

#: Accounts that win or lose most, as the terminal shows them; the CSV has them all.
SHOWN = 10

COLUMNS = ("view", "name", "currency", "usages", "before", "after", "difference")


def add_commands(prices: Any) -> None:
    """Add this module's commands to ``tollgate prices``."""
    backtest = prices.add_parser("backtest", help="what the usage of a period would have brought under a program")
    backtest.add_argument("file", type=Path, metavar="NEW.toml")
    backtest.add_argument("--from", dest="start", type=moment, required=True, help="RFC 3339, of the charge")
    backtest.add_argument("--to", dest="until", type=moment, required=True, help="RFC 3339, not included")
    backtest.add_argument("--account")
    backtest.add_argument("--model", help="default: the models that the program's id is assigned to")
    backtest.add_argument("--operation")
    backtest.add_argument("--csv", type=Path, help="write every sum of every view")
    backtest.add_argument("--chart", type=Path, help="draw revenue by day, before and after: .svg or .png")
    backtest.set_defaults(run=_backtest)


async def _backtest(options: argparse.Namespace) -> None:
    program = parse_program(options.file.read_text())
    if options.chart:
        require_chart(options.chart.suffix)
    async with opened(options) as (ledger, connection):
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
        async for batch in read_charges(connection, asked):
            backtest.add(batch)
    _show_backtest(Console(), backtest)
    if options.csv:
        _write_csv(options.csv, backtest)
    if options.chart:
        options.chart.write_bytes(chart_of(backtest, program, options.chart.suffix))


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
