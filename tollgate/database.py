"""Which Postgres: a real server by TOLLGATE_DATABASE_URL, else the embedded one of this directory."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Self

import asyncpg
import structlog

from ledger import UNREACHABLE
from tollgate.embedded_postgres import EmbeddedPostgres, EmbeddedPostgresError
from tollgate.migrate import load_migrations, migrate, pending
from tollgate.settings import Settings, SettingsError

#: A statement that takes longer is not one of ours; the connection is given up.
STATEMENT_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 5.0
#: How long a pool waits for connections that are not given back, as after a Postgres that went while they were.
CLOSE_WITHIN_S = 5.0

LOOK_AT_POSTGRES_EVERY_S = 0.5

_log = structlog.get_logger(__name__)
_APPLICATION = {
    "role": "tollgate_app",  # may append events, and may not change them
    "timezone": "UTC",
    "jit": "off",  # compiling costs more than any of our statements
    # A process that is stopped, paused or cut off in the middle of a group would keep everybody waiting for its locks.
    "idle_in_transaction_session_timeout": "5s",
    "lock_timeout": "5s",
    "tcp_user_timeout": "10s",
    # The lease of a host that is gone must not be held by a connection to nobody.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
}


@asynccontextmanager
async def database(settings: Settings, environment: Mapping[str, str] = os.environ) -> AsyncIterator[str]:
    """The owner's URL of a Postgres that answers, migrated where it is ours to migrate.

    The embedded server is started, or used where another process of this directory runs it already. Raises
    SettingsError when a real server was not migrated.
    """
    url = environment.get("TOLLGATE_DATABASE_URL")
    if url is not None:
        await _require_migrated(url)
        yield url
        return
    url_file = Path(settings.database.data_dir + ".url")
    running = await _running_url(url_file)
    if running is not None:
        yield running
        return
    Path(settings.database.data_dir).parent.mkdir(parents=True, exist_ok=True)
    keeper = _Keeper(await EmbeddedPostgres.start(Path(settings.database.data_dir)), settings)
    async with keeper:
        await _migrate(keeper.url, settings)
        with _noted(keeper.url, url_file):
            yield keeper.url


class _Keeper:
    """Starts the embedded server again when it dies, under the same URL; Postgres itself recovers the data."""

    def __init__(self, server: EmbeddedPostgres, settings: Settings) -> None:
        self.url = server.url
        self._server = server
        self._data_dir = Path(settings.database.data_dir)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._keep(), name="postgres")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._server.stop()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(LOOK_AT_POSTGRES_EVERY_S)
            if self._server.is_running:
                continue
            _log.error("postgres.died", pid=self._server.pid)
            try:
                self._server = await EmbeddedPostgres.start(self._data_dir, port=self._server.port)
            # What is left of the old one may need a moment to go, and a full disk somebody to make room.
            except (EmbeddedPostgresError, OSError) as error:
                _log.error("postgres.not_restarted", error=str(error))


async def connect(url: str, **settings: Any) -> asyncpg.Connection:
    """A connection that acts as the application: it cannot change events."""
    return await asyncpg.connect(
        url,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=STATEMENT_TIMEOUT_S,
        server_settings=_APPLICATION | settings,
    )


async def create_pool(url: str, *, size: int = 4) -> asyncpg.Pool:
    """A pool of such connections, for reading and for what is not money."""
    return await asyncpg.create_pool(
        url,
        min_size=1,
        max_size=size,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=STATEMENT_TIMEOUT_S,
        server_settings=_APPLICATION,
    )


async def close_pool(pool: asyncpg.Pool) -> None:
    """Close it in order, or else at once: a process that was told to stop must come to its end."""
    try:
        async with asyncio.timeout(CLOSE_WITHIN_S):
            await pool.close()
    except UNREACHABLE as error:
        _log.warning("pool.terminated", error=repr(error))
        pool.terminate()


async def connect_as_owner(url: str) -> asyncpg.Connection:
    """A connection for migrations, rebuilds and checks, without a limit on how long a statement takes."""
    return await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_S, server_settings={"timezone": "UTC", "jit": "off"})


@contextmanager
def _noted(url: str, file: Path) -> Iterator[None]:
    """Tell other commands of this directory where the server is, while it is there."""
    file.touch(mode=0o600)
    file.write_text(url)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)


async def _running_url(url_file: Path) -> str | None:
    try:
        url = await asyncio.to_thread(url_file.read_text)
        connection = await asyncpg.connect(url, timeout=CONNECT_TIMEOUT_S)
    except (OSError, ValueError, asyncpg.PostgresError):  # none, or left by a process that was killed
        return None
    await connection.close()
    return url


async def _migrate(url: str, settings: Settings) -> None:
    connection = await connect_as_owner(url)
    try:
        await migrate(connection, shards=settings.database.shards)
    finally:
        await connection.close()


async def _require_migrated(url: str) -> None:
    connection = await connect_as_owner(url)
    try:
        rows = await connection.fetch("SELECT name, checksum FROM schema_migrations")
    except asyncpg.UndefinedTableError:
        rows = []
    finally:
        await connection.close()
    missing = pending({row["name"]: row["checksum"] for row in rows}, load_migrations())
    if missing:
        raise SettingsError(f"the database lacks {len(missing)} migrations: run `tollgate migrate` first")
