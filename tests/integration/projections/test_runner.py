"""The runner and the sweep go on after a connection that nothing comes back from."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from ledger import Ledger, Sweeper
from projections import ProjectionRunner
from tests.conftest import APP_SETTINGS, Clock
from tests.faults.network import Link
from tests.unit.ledger.scenes import grant, open_account, place, settle

DEAD = 2_147_483_647


@pytest_asyncio.fixture
async def link(database_url: str) -> AsyncIterator[Link]:
    link = Link(urlsplit(database_url).port or 5432)
    await link.open()
    yield link
    await link.close()


@pytest_asyncio.fixture
async def far_pool(link: Link, database_url: str) -> AsyncIterator[asyncpg.Pool]:
    """A pool over the link, with limits as every process's pool has them, only shorter."""
    pool = await asyncpg.create_pool(
        database_url,
        host="127.0.0.1",
        port=link.port,
        min_size=1,
        max_size=1,
        timeout=1.0,
        command_timeout=1.0,
        server_settings=APP_SETTINGS,
    )
    yield pool
    pool.terminate()


async def lines(db: asyncpg.Connection, count: int) -> None:
    """Return once there are so many usage lines."""
    async with asyncio.timeout(30):
        while await db.fetchval("SELECT count(*) FROM usage_logs") < count:
            pass  # the server has answered meanwhile, so that everybody else had a turn


async def test_a_runner_that_was_cut_off_in_silence_follows_the_log_again(
    ledger: Ledger, far_pool: asyncpg.Pool, link: Link, admin: asyncpg.Connection
) -> None:
    running = asyncio.create_task(ProjectionRunner(far_pool).run())
    for command in (open_account(), grant(100), place("hold_1", 10), settle("hold_1", 5)):
        await ledger.submit(command)
    await lines(admin, 1)

    with capture_logs() as logs:
        link.stall()
        for command in (place("hold_2", 10), settle("hold_2", 5)):
            await ledger.submit(command)
        async with asyncio.timeout(30):
            while not any(entry["event"] == "projection.interrupted" for entry in logs):
                await admin.fetchval("SELECT 1")
    seen_while_cut_off = await admin.fetchval("SELECT count(*) FROM usage_logs")
    link.heal()
    await lines(admin, 2)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

    assert seen_while_cut_off == 1


async def test_a_sweep_that_is_cut_off_in_silence_ends_and_the_next_one_ends_the_holds(
    ledger: Ledger, far_pool: asyncpg.Pool, link: Link, clock: Clock
) -> None:
    for command in (open_account(), grant(100), place("hold_1", 10, worker_id=DEAD)):
        await ledger.submit(command)
    sweeper = Sweeper(far_pool, ledger.submit)
    assert await sweeper.sweep(clock.now) == 0

    link.stall()
    async with asyncio.timeout(20):
        with pytest.raises(TimeoutError):
            await sweeper.sweep(clock.now)
    link.heal()

    async with asyncio.timeout(20):
        assert await sweeper.sweep(clock.now) == 1
