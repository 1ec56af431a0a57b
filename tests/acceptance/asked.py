"""A request under way: at its backend, and as its client reads the answer, for as long as the client likes."""

from typing import Any

import aiohttp

from tests.acceptance.client import tokens_in
from tests.acceptance.customers import Customer
from tests.acceptance.running_demo import until


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


async def is_forwarded(customer: Customer) -> Any:
    """The customer's only request, while the backend is at it."""

    async def running() -> Any:
        known = {event["payload"] for event in await customer.events()}
        found = (await customer.demo.backend.get("/_simulator/requests?running=1")).json
        mine = [each for each in found if any(each["request_id"] in payload for payload in known)]
        return mine[0] if mine else None

    return await until(running)
