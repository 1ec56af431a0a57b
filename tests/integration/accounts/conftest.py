"""The room's routes behind a plain aiohttp application, and the people who call them."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import msgspec
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from argon2 import PasswordHasher

from accounts import (
    Authenticator,
    Keys,
    Operators,
    Passwords,
    Role,
    ServiceTokens,
    Tokens,
    Users,
    account_routes,
)
from ledger import Ledger, LedgerUnavailable, Refused
from tests.conftest import Clock
from wire import ApiError, Route, error_reply, mount

#: Fast, because these tests are not about how slow a hash is.
WEAK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORD = "correct horse battery"


class Room:
    """One process: its own memory, on the shared database."""

    def __init__(self, ledger: Ledger, clock: Clock, *, hasher: PasswordHasher = WEAK) -> None:
        tokens = Tokens(b"a server secret of 32 bytes ....")
        self.ledger = ledger
        self.clock = clock
        self.passwords = Passwords(hasher)
        self.authenticator = Authenticator(ledger, tokens, clock=clock, monotonic=self.monotonic)
        self.users = Users(ledger, tokens, self.passwords, currency="USD", clock=clock)
        self.keys = Keys(ledger, tokens, self.authenticator, clock=clock)
        self.operators = Operators(ledger, clock=clock)
        self.service_tokens = ServiceTokens(ledger.pool, tokens, clock=clock)

    def monotonic(self) -> float:
        """A stopwatch that goes with the clock."""
        return self.clock.now.timestamp()

    def routes(self) -> list[Route]:
        return account_routes(
            self.ledger,
            users=self.users,
            keys=self.keys,
            operators=self.operators,
            authenticator=self.authenticator,
            clock=self.clock,
            monotonic=self.monotonic,
        )

    def app(self) -> web.Application:
        app = web.Application(middlewares=[answer_errors])
        mount(app, self.routes())
        return app


@web.middleware
async def answer_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """What the composition root does, roughly."""
    try:
        return await handler(request)
    except ApiError as error:
        return error_reply(error)
    except Refused as error:
        code = {"InsufficientFunds": "payment_required"}.get(type(error).__name__, "invalid_request")
        return error_reply(ApiError(code, str(error)))
    except LedgerUnavailable as error:
        return error_reply(ApiError("ledger_unavailable", str(error)))


class Answer(msgspec.Struct):
    status: int
    body: Any
    headers: dict[str, str]

    @property
    def code(self) -> str:
        return str(self.body["error"]["code"])


class Api:
    """Speaks to one process over HTTP, as one principal or as nobody."""

    def __init__(self, client: TestClient[Any, Any], secret: str | None = None) -> None:
        self.client = client
        self.secret = secret

    def using(self, secret: str | None) -> "Api":
        return Api(self.client, secret)

    async def call(
        self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, **headers: str
    ) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.secret is not None:
            sent.setdefault("Authorization", f"Bearer {self.secret}")
        data = raw if raw is not None else None if body is None else msgspec.json.encode(body)
        async with self.client.request(method, path, data=data, headers=sent) as response:
            content = await response.read()
            decoded = msgspec.json.decode(content) if content else None
            return Answer(response.status, decoded, {name.lower(): text for name, text in response.headers.items()})

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.call("GET", path, **headers)

    async def post(self, path: str, body: Any, **headers: str) -> Answer:
        return await self.call("POST", path, body, **headers)

    async def delete(self, path: str) -> Answer:
        return await self.call("DELETE", path)


class Customer(msgspec.Struct):
    """A registered user with a session."""

    api: Api
    id: str
    email: str
    account_id: str


async def serve(room: Room) -> AsyncIterator[Api]:
    async with TestClient(TestServer(room.app())) as client:
        yield Api(client)


@pytest.fixture
def room(ledger: Ledger, clock: Clock) -> Room:
    """Fresh for every test, so that no test meets the throttle or the memory of another."""
    return Room(ledger, clock)


@pytest_asyncio.fixture
async def api(room: Room) -> AsyncIterator[Api]:
    async for api in serve(room):
        yield api


@pytest_asyncio.fixture
async def other_worker(ledger: Ledger, clock: Clock) -> AsyncIterator[Api]:
    """A second process on the same database."""
    async for api in serve(Room(ledger, clock)):
        yield api


def unique_email() -> str:
    return f"dev-{secrets.token_hex(6)}@example.com"


async def sign_up(api: Api, room: Room, *, role: Role = "customer") -> Customer:
    email = unique_email()
    registered = await room.users.register(email=email, name="Dev", password=PASSWORD, role=role)
    login = await api.using(None).post("/v1/users/login", {"email": email, "password": PASSWORD})
    assert login.status == 200
    user = registered.user
    return Customer(api.using(login.body["session_token"]), user.id, email, user.account_id)


@pytest_asyncio.fixture
async def customer(api: Api, room: Room) -> Customer:
    return await sign_up(api, room)


@pytest_asyncio.fixture
async def operator(api: Api, room: Room) -> Customer:
    return await sign_up(api, room, role="admin")


async def gather(*calls: Awaitable[Answer]) -> list[Answer]:
    return list(await asyncio.gather(*calls))


async def events_of(admin: asyncpg.Connection, account_id: str) -> list[str]:
    """The types of an account's events, in order."""
    rows = await admin.fetch("SELECT type FROM events WHERE stream_id = $1 ORDER BY seq", account_id)
    return [row["type"] for row in rows]
