"""Which Postgres: a real server by TOLLGATE_DATABASE_URL, else the embedded one of this directory."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import asyncpg

from tollgate.embedded_postgres import EmbeddedPostgres
from tollgate.migrate import load_migrations, migrate, pending
from tollgate.settings import Settings, SettingsError

#: A statement that takes longer is not one of ours; the connection is given up.
STATEMENT_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 5.0

_APPLICATION = {
    "role": "tollgate_app",  # may append events, and may not change them
    "timezone": "UTC",
    "jit": "off",  # compiling costs more than any of our statements
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
    async with await EmbeddedPostgres.start(Path(settings.database.data_dir)) as server:
        await _migrate(server.url, settings)
        with _noted(server.url, url_file):
            yield server.url


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
