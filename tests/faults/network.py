"""A TCP proxy between two processes that can refuse, cut, slow down or swallow what passes through it."""

import asyncio
import re
import socket
import struct
from collections import defaultdict
from contextlib import suppress

_CHUNK = 64 * 1024
#: Closing a socket that lingers for no time sends a reset in place of an orderly end.
_RESET = struct.pack("ii", 1, 0)

_Connection = tuple[asyncio.StreamWriter, asyncio.StreamWriter]

_NUMBER = re.compile(rb"x-load-number: (\d+)\r\n", re.IGNORECASE)
_REQUEST_ID = re.compile(rb"x-request-id: (\S+)\r\n", re.IGNORECASE)


class Link:
    """The way from some clients to one server. Healthy until told otherwise."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.delay_s = 0.0  # of each piece of data, each way
        self._refuses = False
        self._flows = asyncio.Event()
        self._flows.set()
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen on a free port of the loopback."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=1024)
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()
        self.heal()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- faults

    def cut(self) -> None:
        """Reset every connection; new ones are welcome."""
        for client, server in list(self._connections):
            _reset(client)
            _reset(server)

    def refuse(self) -> None:
        """Reset every connection, and each new one."""
        self._refuses = True
        self.cut()

    def stall(self) -> None:
        """Let nothing through, not even the end of a connection; nobody is told."""
        self._flows.clear()

    def heal(self) -> None:
        """As if nothing had been; what a stall kept back arrives now."""
        self._refuses = False
        self.delay_s = 0.0
        self._flows.set()

    # --- traffic

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # the server runs this in one
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._refuses:
            _reset(writer)
            return
        with suppress(OSError):
            await self._flows.wait()
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
            connection = (writer, server_writer)
            self._connections.add(connection)
            try:
                await self._until_either_ends(reader, server_writer, server_reader, writer)
            finally:
                self._connections.discard(connection)
                server_writer.close()
        writer.close()

    async def _until_either_ends(
        self,
        from_client: asyncio.StreamReader,
        to_server: asyncio.StreamWriter,
        from_server: asyncio.StreamReader,
        to_client: asyncio.StreamWriter,
    ) -> None:
        ways = {
            asyncio.create_task(self._pump(from_client, to_server, is_request=True)),
            asyncio.create_task(self._pump(from_server, to_client, is_request=False)),
        }
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_request: bool) -> None:
        while data := await reader.read(_CHUNK):
            if is_request:
                self.saw(data)
            if self.delay_s:
                await asyncio.sleep(self.delay_s)
            await self._flows.wait()
            writer.write(data)
            await writer.drain()
        await self._flows.wait()

    def saw(self, data: bytes) -> None:
        """Somebody sends this to the server."""


class BackendLink(Link):
    """A link that reads along: which of the clients' requests was forwarded under which id.

    A client that never got an answer cannot know the id that its request had.
    """

    def __init__(self, target_port: int) -> None:
        super().__init__(target_port)
        self.forwarded: dict[int, set[str]] = defaultdict(set)  # number of the client's request → ids it had

    def saw(self, data: bytes) -> None:
        number, request_id = _NUMBER.search(data), _REQUEST_ID.search(data)
        if number and request_id:
            self.forwarded[int(number[1])].add(request_id[1].decode())


def _reset(writer: asyncio.StreamWriter) -> None:
    end = writer.get_extra_info("socket")
    if end is not None:
        with suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
