"""The room's routes on one side, receivers on the other, and everything between them over sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from accounts import Authenticator, Keys, Tokens, open_account
from ledger import Ledger
from ledger.commands import Command
from notices import Courier, CourierConfig, NoticeMaker, SigningSecrets, Targets, notice_routes, open_courier
from tests.conftest import Clock
from tollgate.app import answer_errors
from wire import Route, mount

from .receiver import Receiver, open_receiver

SERVER_SECRET = b"a server secret of 32 bytes ...."

_decode = msgspec.json.Decoder(float_hook=Decimal).decode


class Answer(msgspec.Struct):
    status: int
    body: Any

    @property
    def code(self) -> str:
        return str(self.body["error"]["code"])


class Customer(msgspec.Struct):
    """An account and a key of it."""

    account_id: str
    secret: str


class Office:
    """One serving process of ours."""

    def __init__(self, ledger: Ledger, clock: Clock, targets: Targets) -> None:
        self.ledger = ledger
        self.clock = clock
        self.tokens = Tokens(SERVER_SECRET)
        self.authenticator = Authenticator(ledger, self.tokens, clock=clock, monotonic=asyncio.get_running_loop().time)
        self.targets = targets
        self.client: TestClient[Any, Any]

    def routes(self) -> list[Route]:
        return notice_routes(
            self.ledger,
            secrets=SigningSecrets(SERVER_SECRET),
            targets=self.targets,
            authenticator=self.authenticator,
            clock=self.clock,
        )

    async def customer(self, *, rate_limit_rpm: int | None = None, account_id: str | None = None) -> Customer:
        if account_id is None:
            account_id = (await open_account(self.ledger, currency="USD")).account_id
        key = await Keys(self.ledger, self.tokens, self.authenticator, clock=self.clock).create(
            account_id, user_id=None, name="k", rate_limit_rpm=rate_limit_rpm, monthly_budget=None
        )
        return Customer(account_id, key.secret)

    async def call(self, method: str, path: str, secret: str | None, body: Any = None) -> Answer:
        headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}
        data = None if body is None else msgspec.json.encode(body)
        async with self.client.request(method, path, data=data, headers=headers) as response:
            content = await response.read()
            return Answer(response.status, _decode(content) if content else None)

    async def submit(self, *commands: Command) -> None:
        for command in commands:
            await self.ledger.submit(command)

    async def make(self) -> None:
        """Make the notices of all that happened."""
        await NoticeMaker(self.ledger.pool).catch_up()

    def courier(self, targets: Targets | None = None, **config: Any) -> AbstractAsyncContextManager[Courier]:
        """Of another process, with these targets instead of ours, and this configuration."""
        said = {"server_secret": SERVER_SECRET, "targets": targets or self.targets, **config}
        return open_courier(CourierConfig(**said), self.ledger, self.clock)

    async def work(self, **config: Any) -> None:
        """Make the notices of all that happened, and deliver what is due."""
        await self.make()
        async with self.courier(**config) as courier:
            await courier.begin()
            await courier.finish()

    async def deliveries(self, customer: Customer, endpoint: Any) -> Any:
        answer = await self.call("GET", f"{ENDPOINTS}/{endpoint['id']}/deliveries", customer.secret)
        assert answer.status == 200, answer
        return answer.body

    async def add(self, customer: Customer, url: str, **fields: Any) -> Any:
        """A new endpoint, as it was answered."""
        answer = await self.call("POST", ENDPOINTS, customer.secret, {"url": url, **fields})
        assert answer.status == 201, answer
        return answer.body


ENDPOINTS = "/v1/webhook_endpoints"


@asynccontextmanager
async def open_office(ledger: Ledger, clock: Clock, targets: Targets) -> AsyncIterator[Office]:
    office = Office(ledger, clock, targets)
    app = web.Application(middlewares=[answer_errors])
    mount(app, office.routes())
    async with TestClient(TestServer(app)) as office.client:
        yield office


@pytest.fixture
def clock() -> Clock:
    """Begins now: receivers verify by the clock of the wall."""
    return Clock(datetime.now(UTC))


@pytest_asyncio.fixture
async def office(ledger: Ledger, clock: Clock) -> AsyncIterator[Office]:
    """A process that sends wherever a test wants it to."""
    async with open_office(ledger, clock, Targets(allow_http=True, allow_private=True)) as office:
        yield office


@pytest_asyncio.fixture
async def strict_office(ledger: Ledger, clock: Clock) -> AsyncIterator[Office]:
    """A process with the settings of production."""
    async with open_office(ledger, clock, Targets(allow_http=False, allow_private=False)) as office:
        yield office


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with open_receiver() as receiver:
        yield receiver


@pytest_asyncio.fixture
async def customer(office: Office) -> Customer:
    return await office.customer()
