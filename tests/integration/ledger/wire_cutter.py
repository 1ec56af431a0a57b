"""A network between a client and Postgres that breaks where it is told to."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum
from urllib.parse import urlsplit, urlunsplit


class Cut(Enum):
    """Where the connection breaks. Postgres's protocol is plain: a commit is the query text ``COMMIT``."""

    NOWHERE = "nowhere"
    BEFORE_COMMIT = "the commit never reaches the server"
    AFTER_COMMIT = "the server commits, and its answer is lost"


class WireCutter:
    """Forwards bytes; after ``cut_next`` the next commit that passes breaks its connection there, once."""

    def __init__(self, host: str, port: int) -> None:
        self.cuts = 0
        self._next = Cut.NOWHERE
        self._server = (host, port)
        self._tasks: set[asyncio.Task[None]] = set()

    def cut_next(self, where: Cut) -> None:
        self._next = where

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._server)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        back = asyncio.create_task(self._pump(server_reader, writer))
        try:
            while data := await reader.read(65536):
                where = self._next if b"COMMIT" in data else Cut.NOWHERE
                if where is Cut.NOWHERE:
                    server_writer.write(data)
                    continue
                self._next = Cut.NOWHERE
                self.cuts += 1
                if where is Cut.AFTER_COMMIT:
                    back.cancel()
                    await asyncio.gather(back, return_exceptions=True)
                    server_writer.write(data)
                    await server_reader.read(65536)  # it answers once it has committed
                break
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            back.cancel()
            writer.transport.abort()
            server_writer.transport.abort()
            self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
        except ConnectionError:
            pass
        writer.transport.abort()

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()


@asynccontextmanager
async def wire_to(database_url: str) -> AsyncIterator[tuple[WireCutter, str]]:
    """A wire to the database's server, and the database's URL through it."""
    parts = urlsplit(database_url)
    assert parts.hostname is not None
    cutter = WireCutter(parts.hostname, parts.port or 5432)
    server = await asyncio.start_server(cutter.handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    login = f"{parts.username}:{parts.password}@" if parts.password else f"{parts.username}@"
    try:
        yield cutter, urlunsplit(parts._replace(netloc=f"{login}127.0.0.1:{port}"))
    finally:
        server.close()
        cutter.close()
