"""The charges of a period for the commands that look at them again: one snapshot, in batches, with a progress bar."""

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ledger import Ledger
from ledger.charges import ChargesAsked, StoredCharge, charges
from ledger.reading import count_shards, head_position
from tollgate.app import utc_now
from tollgate.database import connect, connect_as_owner, create_pool, database
from tollgate.settings import load_settings


@asynccontextmanager
async def opened(options: argparse.Namespace) -> AsyncIterator[tuple[Ledger, asyncpg.Connection]]:
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


async def read_charges(connection: asyncpg.Connection, asked: ChargesAsked) -> AsyncIterator[list[StoredCharge]]:
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
