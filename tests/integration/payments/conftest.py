"""The room's routes on one side, a simulated Stripe on the other, and everything between them over sockets."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import asyncpg
import msgspec
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from accounts import Authenticator, Keys, Role, ServiceTokens, Tokens, open_account
from ledger import AdjustBalance, Ledger, microcents_from_cents
from payments import StripeConfig, StripeRoad, TopupRoutes, open_stripe, stripe_routes
from simulated_stripe.faults import Faults
from simulated_stripe.objects import Object
from simulated_stripe.server import SimulatedStripe
from simulated_stripe.webhooks import signature
from tests.conftest import Clock
from tollgate.app import answer_errors
from wire import Route, mount

API_KEY = "sk_test_1"
SECRET, FORMER_SECRET = "whsec_1", "whsec_0"

_decode = msgspec.json.Decoder(float_hook=Decimal).decode


class Answer(msgspec.Struct):
    status: int
    body: Any
    headers: dict[str, str]

    @property
    def code(self) -> str:
        return str(self.body["error"]["code"])


class Payer(msgspec.Struct):
    """An account and a key of it."""

    account_id: str
    secret: str


class Till:
    """One process of ours, and Stripe."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        stripe: SimulatedStripe,
        config: StripeConfig,
        road: StripeRoad | None,
        client: Any,
        tokens: Tokens,
    ) -> None:
        self.ledger = ledger
        self.clock = clock
        self.stripe = stripe
        self.books = stripe.books
        self.config = config
        self.client: TestClient[Any, Any] = client
        self.tokens = tokens
        self._road = road

    @property
    def road(self) -> StripeRoad:
        assert self._road is not None
        return self._road

    # --- our side

    async def payer(self, currency: str = "USD", *, rate_limit_rpm: int | None = None) -> Payer:
        account = await open_account(self.ledger, currency=currency)
        authenticator = Authenticator(self.ledger, self.tokens, clock=self.clock, monotonic=lambda: 0)
        key = await Keys(self.ledger, self.tokens, authenticator, clock=self.clock).create(
            account.account_id, user_id=None, name="k", rate_limit_rpm=rate_limit_rpm, monthly_budget=None
        )
        return Payer(account.account_id, key.secret)

    async def service_token(self, role: Role) -> str:
        tokens = ServiceTokens(self.ledger.pool, self.tokens, clock=self.clock)
        return (await tokens.create(name="job", role=role)).secret

    async def call(self, method: str, path: str, secret: str | None = None, body: Any = None, **headers: str) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if secret is not None:
            sent["Authorization"] = f"Bearer {secret}"
        data = body if isinstance(body, bytes) else None if body is None else msgspec.json.encode(body)
        async with self.client.request(method, path, data=data, headers=sent) as response:
            return Answer(response.status, _decode(await response.read() or b"null"), dict(response.headers))

    async def checkout(self, payer: Payer, cents: Any = 1000, **headers: str) -> Answer:
        path = "/v1/topup/stripe/checkout"
        return await self.call("POST", path, payer.secret, {"amount_cents": cents}, **headers)

    async def history(self, payer: Payer, query: str = "") -> Any:
        answer = await self.call("GET", f"/v1/topup/history{query}", payer.secret)
        assert answer.status == 200, answer
        return answer.body

    async def status_of(self, payer: Payer) -> str:
        """The status of the account's last top-up."""
        return str((await self.history(payer))[0]["status"])

    async def credited(self, payer: Payer) -> Decimal:
        """In cents, net of what was taken back."""
        account = await self.ledger.account(payer.account_id)
        assert account is not None
        return Decimal(account.credited).scaleb(-6)

    async def events_of(self, payer: Payer) -> list[str]:
        """What happened to the account's top-ups."""
        return [
            tag
            for stored in await self.ledger.stream(payer.account_id)
            if (tag := stored.event.__struct_config__.tag).startswith("topup.")  # type: ignore[union-attr]
        ]

    # --- what Stripe tells

    async def tell(self, event: Object | bytes, *, secret: str = SECRET, age_s: int = 0) -> Answer:
        """Deliver an event, and wait until it is processed."""
        body = event if isinstance(event, bytes) else msgspec.json.encode(event)
        answer = await self.call("POST", WEBHOOK, body=body, Stripe_Signature=self.signed(body, secret, age_s))
        await self.road.inbox.close()
        return answer

    def signed(self, body: bytes, secret: str = SECRET, age_s: int = 0) -> str:
        return signature(secret, body, int(self.clock.now.timestamp()) - age_s)

    def events(self, *types: str) -> list[Object]:
        """What Stripe has to tell so far, all of it or of these types, oldest first."""
        return [event for event in self.books.events if not types or event["type"] in types]

    async def outcomes(self) -> list[tuple[str, str]]:
        """(status, outcome) of every notification stored."""
        rows = await self.ledger.pool.fetch(
            "SELECT status, coalesce(outcome, '') AS outcome FROM payment_notifications ORDER BY received_at, id"
        )
        return [(row["status"], row["outcome"]) for row in rows]

    # --- what customers and banks do

    async def paid(self, payer: Payer, cents: int = 1000) -> Object:
        """A session that is paid, of which we were not told yet; gives the payment intent."""
        return self.pay(await self.ordered(payer, cents))

    async def ordered(self, payer: Payer, cents: int = 1000) -> Object:
        answer = await self.checkout(payer, cents)
        assert answer.status == 201, answer
        return self.books.get(answer.body["session_id"], "checkout.session")

    def pay(self, session: Object, **how: Any) -> Object:
        return self.books.pay_session(session, **how)

    def refund(self, payment: Object, units: int | None = None) -> Object:
        return self.books.refund(self.charge_of(payment), units, {}, None)

    def charge_of(self, payment: Object) -> Object:
        return self.books.get(payment["latest_charge"], "charge")

    def stripe_fails(self, **how: Any) -> None:
        self.stripe.faults.replace(Faults(**how))

    async def spend(self, payer: Payer, cents: int) -> None:
        """As charges would."""
        await self.ledger.submit(
            AdjustBalance(
                stream_id=payer.account_id,
                amount_microcents=microcents_from_cents(Decimal(-cents)),
                reason="spent",
                adjusted_by="test",
                idempotency_key=secrets.token_hex(8),
            )
        )


WEBHOOK = "/v1/topup/stripe/webhook"
CARD = "/v1/topup/stripe/card"
AUTOMATIC = "/v1/topup/automatic"


@asynccontextmanager
async def open_till(ledger: Ledger, clock: Clock, *, configured: bool = True) -> AsyncIterator[Till]:
    simulation = SimulatedStripe(API_KEY)
    simulation.books.clock = lambda: clock.now.timestamp()
    tokens = Tokens(b"a server secret of 32 bytes ....")
    authenticator = Authenticator(ledger, tokens, clock=clock, monotonic=lambda: clock.now.timestamp())
    async with TestServer(simulation.app()) as server:
        config = StripeConfig(
            api_key=API_KEY,
            webhook_secrets=(SECRET, FORMER_SECRET),
            success_url="https://shop.example/thanks",
            api_url=str(server.make_url("/")).rstrip("/"),
            minimum=microcents_from_cents(Decimal(500)),
            maximum=microcents_from_cents(Decimal(100_000)),
            timeout_s=1,
        )
        async with open_stripe(config, ledger, clock) as road:
            routes = [
                *TopupRoutes(ledger, authenticator).routes(),
                *stripe_routes(ledger, authenticator, road if configured else None),
            ]
            async with TestClient(TestServer(app_of(routes))) as client:
                yield Till(ledger, clock, simulation, config, road if configured else None, client, tokens)


def app_of(routes: list[Route]) -> web.Application:
    app = web.Application(middlewares=[answer_errors])
    mount(app, routes)
    return app


@pytest_asyncio.fixture
async def till(ledger: Ledger, clock: Clock) -> AsyncIterator[Till]:
    async with open_till(ledger, clock) as till:
        yield till


@pytest_asyncio.fixture
async def closed_till(ledger: Ledger, clock: Clock) -> AsyncIterator[Till]:
    """A process that has no secrets of Stripe's."""
    async with open_till(ledger, clock, configured=False) as till:
        yield till


@pytest_asyncio.fixture
async def payer(till: Till) -> Payer:
    return await till.payer()


async def trial_balance(pool: asyncpg.Pool) -> int:
    """The sum over all ledger accounts, which is zero."""
    return int(await pool.fetchval("SELECT coalesce(sum(debit_microcents - credit_microcents), 0) FROM trial_balance"))


async def require_unharmed(till: Till, payer: Payer) -> None:
    """Raises AssertionError when anything was credited, or stored and not processed."""
    assert await till.credited(payer) == 0, "something was credited"
    open_ = await till.ledger.pool.fetch("SELECT outcome FROM payment_notifications WHERE status = 'received'")
    assert open_ == [], f"not processed: {open_[0]['outcome']}"
