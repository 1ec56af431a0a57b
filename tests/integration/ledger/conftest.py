"""More than one serving process, and seeing who waits for whom."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest_asyncio

from ledger import Ledger
from tests.conftest import Clock, Connect


@pytest_asyncio.fixture
async def ledgers(pool: asyncpg.Pool, connect: Connect, clock: Clock) -> AsyncIterator[list[Ledger]]:
    """Four ledgers on one database, as four serving processes have them."""
    ledgers = [await Ledger.open(pool, connect, clock) for _ in range(4)]
    yield ledgers
    async with asyncio.timeout(30):
        for ledger in ledgers:
            await ledger.close()


async def waits_for_a_lock(db: asyncpg.Connection, pid: int, *, within_s: int = 20) -> None:
    """Return once the backend is seen waiting for a lock."""
    async with asyncio.timeout(within_s):
        while not await db.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND NOT granted)", pid):
            pass  # the server has answered meanwhile, so that everybody else had a turn
