"""``tollgate reconcile``: a provider's books against ours, what people say of differences, and the daily runs."""

import argparse
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from payments import PaymentsNotConfigured, open_roads
from payments.reconciliation import (
    DailyReconciliation,
    Reconciler,
    Report,
    as_csv,
    as_json,
    days_of,
    rows_of,
)
from tollgate.app import utc_now
from tollgate.cli_accounts import open_ledger
from tollgate.payments_config import payments_config
from tollgate.settings import load_settings
from tollgate.sources import open_sources

PROVIDERS = ("stripe", "usdc", "alipay")
#: Of a table on a terminal nobody knows how wide, where it is written to a file.
FILE_WIDTH = 200


def add_commands(commands: Any) -> None:
    """Add this module's commands to the parser."""
    about = "compare a provider's books with ours, line by line; exit code 1 when something is unresolved"
    reconcile = commands.add_parser("reconcile", help=about).add_subparsers(required=True)
    for provider in PROVIDERS:
        compare = reconcile.add_parser(provider, help=f"compare with {provider}")
        compare.add_argument("--from", dest="start", type=date.fromisoformat, required=True, help="first day")
        compare.add_argument("--to", dest="until", type=date.fromisoformat, required=True, help="day, not included")
        compare.add_argument("--format", choices=("table", "csv", "json"), default="table")
        compare.add_argument("--output", type=Path, help="write it there")
        compare.add_argument("--all", action="store_true", help="in the table, what matched as well")
        compare.set_defaults(run=_compare, provider=provider)
    resolve = reconcile.add_parser("resolve", help="say why a break is none, or what was done about it")
    resolve.add_argument("break_id", metavar="BREAK")
    resolve.add_argument("--reason", required=True, help="in the books, for ever")
    resolve.add_argument("--by", required=True, help="who says so")
    resolve.set_defaults(run=_resolve)
    runs = reconcile.add_parser("runs", help="the last reconciliation of each day")
    runs.add_argument("--provider", choices=PROVIDERS)
    runs.add_argument("--limit", type=int, default=30, help="at most so many (default: 30)")
    runs.set_defaults(run=_runs)


async def _compare(options: argparse.Namespace) -> int:
    if options.start >= options.until:
        raise ValueError("--to is not after --from")
    settings = load_settings(options.config)
    config = payments_config(settings)
    async with (
        open_ledger(settings) as ledger,
        open_roads(config, ledger, utc_now) as roads,
        open_sources(config, roads, ledger) as sources,
    ):
        source = sources.get(options.provider)
        if source is None:
            raise PaymentsNotConfigured(options.provider)
        period = days_of(options.start, options.until, source.zone)
        report = await Reconciler(ledger, utc_now).reconcile(source, period)
    match options.format:
        case "csv":
            _write(options.output, as_csv(report))
        case "json":
            _write(options.output, as_json(report))
        case _:
            _show(report, options)
    return 1 if report.unresolved else 0


async def _resolve(options: argparse.Namespace) -> None:
    async with open_ledger(load_settings(options.config)) as ledger:
        resolved = await Reconciler(ledger, utc_now).resolve(
            options.break_id, reason=options.reason, resolved_by=options.by
        )
    print(f"{resolved.break_id}  {resolved.provider}  {resolved.kind}  resolved by {resolved.resolved_by}")


async def _runs(options: argparse.Namespace) -> None:
    async with open_ledger(load_settings(options.config)) as ledger:
        runs = await DailyReconciliation(ledger, [], utc_now).runs(options.provider, limit=options.limit)
    for run in runs:
        done = "not yet" if run.finished_at is None else f"{run.finished_at:%Y-%m-%dT%H:%M:%SZ}"
        print(
            f"{run.provider}  {run.day}  {done}  matched {run.matched}  breaks {len(run.breaks)}"
            f"{''.join(f'  {break_id}' for break_id in run.breaks)}{f'  {run.problem}' if run.problem else ''}"
        )


def _show(report: Report, options: argparse.Namespace) -> None:
    table = Table(title=f"{report.provider} {options.start} – {options.until}")
    for column in ("status", "kind", "reference", "theirs", "ours", "when", "break"):
        table.add_column(column, overflow="fold")
    for row in rows_of(report, report.items if options.all else report.breaks):
        table.add_row(
            f"{row.status}, resolved by {row.resolved_by}" if row.is_resolved else row.status,
            row.kind,
            row.reference,
            f"{row.their_amount or '–'} {row.their_currency or ''}",
            f"{row.our_amount or '–'} {row.our_currency or ''}",
            f"{row.their_at or row.our_at:%Y-%m-%d %H:%M:%S}",
            row.break_id or "",
        )
    counts = "  ".join(f"{status} {count}" for status, count in sorted(report.counts.items()))
    ending = f"{counts or 'nothing moved'}  unresolved {len(report.unresolved)}"
    if options.output is None:
        console = Console()
        console.print(table, ending)
        return
    with options.output.open("w") as file:
        Console(file=file, width=FILE_WIDTH).print(table, ending)


def _write(output: Path | None, text: str) -> None:
    if output is None:
        print(text, end="")
    else:
        output.write_text(text, newline="")
