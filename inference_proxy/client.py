"""The client's end of a streamed answer."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from aiohttp import web

from inference_proxy.answers import MAX_KEPT
from inference_proxy.keyed import Keyed

#: A client that takes nothing for so long is gone: its hold must not run out under an answer that is being served.
CLIENT_STALL_S = 30.0
#: A connection takes so much without waiting for its client; a timer for each word would cost more than the word.
NEVER_WAITS = 32 * 1024


class ClientGone(Exception):
    """The client closed its connection. Not an aiohttp error, so that it is never taken for one of the backend's."""


class ClientStream:
    """What is sent to the client, as long as there is one."""

    def __init__(self, request: web.Request, headers: dict[str, str]) -> None:
        self.reaches = True  # what is sent reaches somebody
        self.patience = asyncio.timeout(None)  # with the backend's answer
        self._request = request
        self.response = web.StreamResponse(
            headers={**headers, "content-type": "text/event-stream", "cache-control": "no-cache"}
        )

    async def start(self) -> None:
        """Send the headers. Raises ClientGone."""
        try:
            await self.response.prepare(self._request)
        except ConnectionResetError as error:
            raise ClientGone from error

    async def send(self, data: bytes) -> None:
        """Hand the bytes over to the connection. Raises ClientGone when it is closed, or takes nothing any more."""
        transport = self._request.transport
        try:
            if transport is not None and transport.get_write_buffer_size() + len(data) <= NEVER_WAITS:
                await self.response.write(data)
            else:
                async with asyncio.timeout(CLIENT_STALL_S):
                    await self.response.write(data)
        except (ConnectionResetError, TimeoutError) as error:
            raise ClientGone from error

    async def end(self, data: bytes) -> None:
        """Send the last bytes. Raises ClientGone."""
        await self.send(data)
        try:
            async with asyncio.timeout(CLIENT_STALL_S):
                await self.response.write_eof()
        except (ConnectionResetError, TimeoutError) as error:
            self.abort()
            raise ClientGone from error

    def left(self) -> None:
        """The client has closed its connection, as the server noticed."""

    async def keep(self, end: bytes) -> None:
        """Before the answer is charged: this will be its end."""

    def abort(self) -> None:
        """Close the connection at once: what the client did not take is not for it any more."""
        if self._request.transport is not None:
            self._request.transport.abort()


class _OutlivedStream(ClientStream):
    """Goes on without its client."""

    def __init__(self, request: web.Request, headers: dict[str, str]) -> None:
        super().__init__(request, headers)
        self._is_gone = False

    async def start(self) -> None:
        await self._while_there(super().start())

    async def send(self, data: bytes) -> None:
        if not self._is_gone:
            await self._while_there(super().send(data))

    async def end(self, data: bytes) -> None:
        await self.send(data)
        if self._is_gone:  # a clean end would say that what it took is all
            self.abort()
        else:
            await super().end(b"")

    def left(self) -> None:
        self._is_gone = True

    async def _while_there(self, sending: Coroutine[Any, Any, None]) -> None:
        try:
            await sending
        except ClientGone:
            self.left()


class KeptStream(_OutlivedStream):
    """Keeps what is sent, for whoever asks again with the same Idempotency-Key."""

    def __init__(self, request: web.Request, headers: dict[str, str], keyed: Keyed) -> None:
        super().__init__(request, headers)
        self._kept_headers = headers
        self._keyed = keyed
        self._kept = bytearray()

    async def send(self, data: bytes) -> None:
        if len(self._kept) <= MAX_KEPT:  # what is larger is not kept, and so need not be collected
            self._kept += data
        await super().send(data)

    async def keep(self, end: bytes) -> None:
        await self._keyed.keep(bytes(self._kept + end), "text/event-stream", self._kept_headers)


class DrainedStream(_OutlivedStream):
    """Listens on for a while after its client has gone, for the usage that the backend tells at the end."""

    def __init__(self, request: web.Request, headers: dict[str, str], *, drain_s: float) -> None:
        super().__init__(request, headers)
        self._drain_s = drain_s

    def left(self) -> None:
        if self.reaches:
            self.reaches = False
            self.patience.reschedule(asyncio.get_running_loop().time() + self._drain_s)
        super().left()
