"""The embedded server of an installation is started again when it dies, until it runs."""

import os
import signal
from pathlib import Path

import asyncpg
from structlog.testing import capture_logs

from tests.integration.embedded_postgres.servers import eventually
from tollgate.database import database
from tollgate.settings import DatabaseSettings, Settings


async def test_a_server_that_cannot_even_be_started_is_started_as_soon_as_it_can_be(home: Path) -> None:
    settings = Settings(database=DatabaseSettings(data_dir=str(home / "db")))
    log = home / "db.log"
    async with database(settings, {}) as url:
        postmaster = int((home / "db" / "postmaster.pid").read_text().split()[0])
        log.unlink()
        log.mkdir()  # in the way, as a full disk is

        with capture_logs() as logs:
            os.kill(postmaster, signal.SIGKILL)
            await eventually(lambda: [each["event"] for each in logs].count("postgres.not_restarted") > 1)
            log.rmdir()
            await eventually(lambda: log.exists() and "ready to accept connections" in log.read_text())

        connection = await asyncpg.connect(url)
        assert await connection.fetchval("SELECT count(*) FROM events") == 0
        await connection.close()
