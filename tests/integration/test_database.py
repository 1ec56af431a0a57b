"""The pool of a process: it comes to its end with the process."""

import asyncio

import asyncpg
import pytest
from structlog.testing import capture_logs

from tollgate.database import close_pool, create_pool


async def test_a_connection_that_is_never_given_back_keeps_no_process_from_stopping(database_url: str) -> None:
    pool = await create_pool(database_url)
    kept = await pool.acquire()

    with capture_logs() as logs:
        async with asyncio.timeout(60):
            await close_pool(pool)

    with pytest.raises(asyncpg.InterfaceError, match="released"):
        await kept.fetchval("SELECT 1")
    assert [log["event"] for log in logs] == ["pool.terminated"]


async def test_a_pool_that_nobody_uses_is_closed_in_order(database_url: str) -> None:
    pool = await create_pool(database_url)
    assert await pool.fetchval("SELECT 1") == 1

    with capture_logs() as logs:
        await close_pool(pool)

    assert pool.is_closing()
    assert logs == []
