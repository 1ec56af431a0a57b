"""The tests' own HTTP client: every request on a connection of its own, so that it may meet any worker."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import aiohttp
import msgspec

_decode = msgspec.json.Decoder(float_hook=Decimal).decode
_encode = msgspec.json.Encoder(decimal_format="number").encode

TIMEOUT = aiohttp.ClientTimeout(total=60)


class Answer(msgspec.Struct, frozen=True):
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, with fractions as Decimals: money is compared exactly."""
        return _decode(self.body)

    @property
    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = self.json["error"]
        return error


class Http:
    """Speaks to one server."""

    def __init__(self, url: str) -> None:
        self._session = aiohttp.ClientSession(
            url, connector=aiohttp.TCPConnector(limit=0, force_close=True), timeout=TIMEOUT
        )

    async def close(self) -> None:
        await self._session.close()

    @asynccontextmanager
    async def open(
        self, method: str, path: str, body: Any = None, *, raw: Any = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """An answer whose body is still to come."""
        sent = dict(headers or {})
        if body is not None:
            raw = _encode(body)
        if raw is not None:
            sent.setdefault("Content-Type", "application/json")
        async with self._session.request(method, path, data=raw, headers=sent) as response:
            yield response

    async def call(
        self, method: str, path: str, body: Any = None, *, raw: Any = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        async with self.open(method, path, body, raw=raw, headers=headers) as response:
            content = await response.read()
            return Answer(response.status, response.headers, content)

    async def get(self, path: str, *, headers: Mapping[str, str] | None = None) -> Answer:
        return await self.call("GET", path, headers=headers)

    async def post(self, path: str, body: Any, *, headers: Mapping[str, str] | None = None) -> Answer:
        return await self.call("POST", path, body, headers=headers)
