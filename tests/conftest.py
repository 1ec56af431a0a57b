"""What every test may ask for: a real Postgres, a fresh migrated database on it, and a clock that moves when told.

``TOLLGATE_TEST_DATABASE_URL`` (a superuser's URL) selects a server; else each test process starts an embedded one.
"""

import asyncio
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
import pytest_asyncio
import structlog
from hypothesis import HealthCheck, settings

from ledger import Ledger
from tollgate.embedded_postgres import EmbeddedPostgres
from tollgate.migrate import migrate

#: What every serving process connects with: it acts as the application's role, never as the owner.
APP_SETTINGS = {"role": "tollgate_app", "timezone": "UTC"}

# A test run is the same every time; HYPOTHESIS_PROFILE=search looks for new examples, and for longer.
_QUIET = (HealthCheck.too_slow, HealthCheck.function_scoped_fixture)
settings.register_profile("ci", derandomize=True, max_examples=120, deadline=None, suppress_health_check=_QUIET)
settings.register_profile("search", max_examples=2_000, deadline=None, suppress_health_check=_QUIET)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

Connect = Callable[[], Awaitable[asyncpg.Connection]]


class Clock:
    """Says what ``now`` is set to."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **duration: int) -> None:
        """Move by a ``timedelta`` of this duration; a negative one steps back."""
        self.now += timedelta(**duration)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A command that a test runs in its own process sets up logging for good."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def clock() -> Clock:
    return Clock(datetime(2026, 11, 21, 12, 0, tzinfo=UTC))


def database_at(server_url: str, name: str) -> str:
    """The URL of another database of the same server."""
    return urlunsplit(urlsplit(server_url)._replace(path=f"/{name}"))


@pytest_asyncio.fixture(scope="session")
async def postgres_url() -> AsyncIterator[str]:
    """A server, as its superuser."""
    if given := os.environ.get("TOLLGATE_TEST_DATABASE_URL"):
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="tollgate-tests-") as directory:
        os.chmod(directory, 0o711)  # the server's own user must be able to reach its data
        postgres = await EmbeddedPostgres.start(Path(directory) / "postgres", durable=False)
        try:
            yield postgres.url
        finally:
            await postgres.discard()


@pytest_asyncio.fixture(scope="session")
async def server(postgres_url: str) -> AsyncIterator[asyncpg.Connection]:
    """The superuser's connection that makes and drops the databases of the tests."""
    connection = await asyncpg.connect(postgres_url)
    yield connection
    await connection.close()


@pytest_asyncio.fixture(scope="session")
async def template(server: asyncpg.Connection, postgres_url: str) -> AsyncIterator[str]:
    """The name of a migrated database that nobody is connected to."""
    name = f"tollgate_template_{secrets.token_hex(4)}"
    await server.execute(f"CREATE DATABASE {name}")
    connection = await asyncpg.connect(database_at(postgres_url, name))
    await migrate(connection)
    await connection.close()
    yield name
    await server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest_asyncio.fixture
async def empty_database_url(server: asyncpg.Connection, postgres_url: str) -> AsyncIterator[str]:
    """A database of this test's own that was never migrated."""
    name = f"tollgate_test_{secrets.token_hex(4)}"
    await server.execute(f"CREATE DATABASE {name}")
    yield database_at(postgres_url, name)
    await server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest_asyncio.fixture
async def database_url(server: asyncpg.Connection, postgres_url: str, template: str) -> AsyncIterator[str]:
    """A fresh migrated database of this test's own, as its owner."""
    name = f"tollgate_test_{secrets.token_hex(4)}"
    await server.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield database_at(postgres_url, name)
    await server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest_asyncio.fixture
async def admin(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection as the owner of the schema."""
    connection = await asyncpg.connect(database_url, server_settings={"timezone": "UTC"})
    yield connection
    await connection.close()


@pytest.fixture
def connect(database_url: str) -> Connect:
    """Makes connections as the application."""

    async def connect() -> asyncpg.Connection:
        return await asyncpg.connect(database_url, server_settings=APP_SETTINGS)

    return connect


@pytest_asyncio.fixture
async def pool(database_url: str) -> AsyncIterator[asyncpg.Pool]:
    """A pool of connections as the application."""
    async with asyncpg.create_pool(database_url, min_size=1, max_size=8, server_settings=APP_SETTINGS) as pool:
        yield pool


@pytest_asyncio.fixture
async def ledger(pool: asyncpg.Pool, connect: Connect, clock: Clock) -> AsyncIterator[Ledger]:
    """The ledger of one serving process."""
    ledger = await Ledger.open(pool, connect, clock)
    yield ledger
    async with asyncio.timeout(30):
        await ledger.close()
