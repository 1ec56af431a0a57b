"""``tollgate migrate``, ``check`` and ``rebuild``: the commands about the books as a whole."""

import argparse
import os
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from projections import check_books, rebuild
from tollgate.database import connect_as_owner, database
from tollgate.migrate import load_migrations, migrate
from tollgate.settings import load_settings

#: Findings printed in full; a broken ledger can have millions.
MAX_FINDINGS = 1000


def add_commands(commands: Any) -> None:
    """Add this module's commands to the parser."""
    apply = commands.add_parser("migrate", help="bring the database to the schema of this version")
    apply.set_defaults(run=_migrate)
    check = commands.add_parser("check", help="derive every state and projection again; name each difference")
    check.set_defaults(run=_check)
    again = commands.add_parser("rebuild", help="make every projection again from the events")
    again.set_defaults(run=_rebuild)


async def _migrate(options: argparse.Namespace) -> None:
    settings = load_settings(options.config)
    url = os.environ.get("TOLLGATE_MIGRATION_DATABASE_URL") or os.environ.get("TOLLGATE_DATABASE_URL")
    if url is None:
        async with database(settings):
            print("the embedded Postgres is migrated whenever it starts")
        return
    connection = await connect_as_owner(url)
    try:
        applied = await migrate(connection, shards=settings.database.shards)
    finally:
        await connection.close()
    for name in applied:
        print(f"applied {name}")
    if not applied:
        print("nothing to apply")


async def _check(options: argparse.Namespace) -> int:
    async with database(load_settings(options.config)) as url:
        connection = await connect_as_owner(url)
        try:
            count = 0
            async for finding in check_books(connection):
                count += 1
                if count <= MAX_FINDINGS:
                    print(finding)
        finally:
            await connection.close()
    print("the books are in order" if count == 0 else f"{count} findings")
    return 1 if count else 0


async def _rebuild(options: argparse.Namespace) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    async with database(load_settings(options.config)) as url:
        connection = await connect_as_owner(url)
        try:
            with Progress(*columns, console=Console(stderr=True)) as bar:
                task = bar.add_task("events", total=None)
                rebuilt = await rebuild(
                    connection,
                    [migration.sql for migration in load_migrations()],
                    lambda done, total: bar.update(task, completed=done, total=total),
                )
        finally:
            await connection.close()
    print(f"rebuilt from {rebuilt.events} events: {rebuilt.accounts} accounts")
