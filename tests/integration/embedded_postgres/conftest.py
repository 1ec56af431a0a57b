"""Places for servers, and servers that are stopped in the end."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.integration.embedded_postgres.servers import Start
from tollgate.embedded_postgres import (
    EmbeddedPostgres,
)


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that everybody can enter: pytest's own are closed to all but their owner."""
    directory = Path(tempfile.mkdtemp(prefix="tollgate-test-", dir="/var/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts servers as ``EmbeddedPostgres.start`` does, but fast, and stops them in the end."""
    servers: list[EmbeddedPostgres] = []

    async def start_one(data_dir: Path, **how: object) -> EmbeddedPostgres:
        server = await EmbeddedPostgres.start(data_dir, **{"durable": False, **how})  # type: ignore[arg-type]
        servers.append(server)
        return server

    yield start_one
    for server in servers:
        await server.stop()
