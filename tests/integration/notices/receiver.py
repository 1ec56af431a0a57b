"""A customer's server, which is told things and does what a test wants it to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.test_utils import TestServer
from standardwebhooks import Webhook, WebhookVerificationError

_decode = msgspec.json.Decoder(float_hook=Decimal).decode


class Told(msgspec.Struct):
    """A request that a receiver got."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        return _decode(self.body)

    def verified_by(self, secret: str) -> bool:
        """Whether the library of Standard Webhooks takes it for genuine."""
        try:
            Webhook(secret).verify(self.body, self.headers)
        except WebhookVerificationError:
            return False
        return True


Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Receiver:
    """A customer's server. Every request is answered by the next of ``behaviours``, at last by 204."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.behaviours: list[Behaviour | int] = []
        self.url: str
        self._heard = asyncio.Event()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.told.append(Told(request.path, headers, await request.read()))
        self._heard.set()
        behaviour = self.behaviours.pop(0) if self.behaviours else 204
        return web.Response(status=behaviour) if isinstance(behaviour, int) else await behaviour(request)

    async def until_told(self, count: int) -> None:
        """Return once it has so many requests."""
        async with asyncio.timeout(30):
            while len(self.told) < count:
                self._heard.clear()
                await self._heard.wait()


@asynccontextmanager
async def open_receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.answer)
    async with TestServer(app, host="127.0.0.1") as server:
        receiver.url = str(server.make_url("/hook"))
        yield receiver


async def hang(request: web.Request) -> web.StreamResponse:
    """Until whoever asked is gone."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError
