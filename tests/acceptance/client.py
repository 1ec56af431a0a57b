"""The tests' own HTTP client."""

import asyncio
import re
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

    async def wait_as_told(self) -> None:
        """Return when it may help to ask again, as this refusal says."""
        await asyncio.sleep(int(self.headers["retry-after-ms"]) / 1000)


class Http:
    """Speaks to one server: each request on a connection of its own, so that it may meet any worker; or all of them,
    one after the other, on the same one."""

    def __init__(self, url: str, *, one_connection: bool = False) -> None:
        connector = aiohttp.TCPConnector(limit=1) if one_connection else aiohttp.TCPConnector(limit=0, force_close=True)
        self._session = aiohttp.ClientSession(url, connector=connector, timeout=TIMEOUT)

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


def chunks_of(stream: bytes) -> list[Any]:
    """The decoded chunks of an event stream that came to its end."""
    found = [line.removeprefix(b"data: ") for line in stream.splitlines() if line.startswith(b"data: ")]
    assert found[-1] == b"[DONE]"
    return [_decode(each) for each in found[:-1]]


def tokens_in(stream: bytes) -> int:
    """The tokens of the whole events in a stream of the simulated backend, where each word is one."""
    events, _, _ = stream.rpartition(b"\n\n")
    return sum(len(text.split()) for text in re.findall(rb'"delta":\{"content":"([^"]*)"', events))


def comments_of(stream: bytes) -> dict[str, Decimal]:
    """The numbers in the comment lines of an event stream."""
    return {name: Decimal(value) for name, value in re.findall(r"^: (\S+)=(\S+)$", stream.decode(), re.MULTILINE)}
