"""A stream as its client reads it: for as long as the client likes."""

import aiohttp

from tests.acceptance.client import tokens_in


class Asked:
    """A streamed answer, and what has arrived of it."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.request_id = response.headers["x-request-id"]
        self.hold_id = response.headers["x-tollgate-hold-id"]
        self.received = b""
        self._response = response

    @property
    def tokens(self) -> int:
        return tokens_in(self.received)

    async def read_tokens(self, count: int) -> None:
        """Read until so many have arrived."""
        while self.tokens < count:
            chunk = await self._response.content.readany()
            assert chunk, self.received
            self.received += chunk

    async def read_on(self) -> None:
        """Read until the end, also one in the middle of the answer."""
        try:
            async for chunk in self._response.content.iter_any():
                self.received += chunk
        except aiohttp.ClientPayloadError:
            pass
