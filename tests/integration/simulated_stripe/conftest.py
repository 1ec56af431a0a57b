"""A simulated Stripe on a socket, spoken to by Stripe's own library, and an endpoint that takes its webhooks."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import stripe
from aiohttp import web
from aiohttp.test_utils import TestServer

from simulated_stripe.server import SimulatedStripe
from simulated_stripe.webhooks import Endpoint

API_KEY = "sk_test_1"
SECRET = "whsec_1"


class Shop:
    """The library on the one side, the customer and the bank on the other."""

    def __init__(self, client: stripe.StripeClient, outside: aiohttp.ClientSession) -> None:
        self.client = client
        self.outside = outside

    async def play(self, path: str, **how: Any) -> dict[str, Any]:
        """What only the simulation offers, under /_simulator."""
        async with self.outside.post(f"/_simulator/{path}", json=how) as answer:
            assert answer.status == 200, await answer.text()
            played: dict[str, Any] = await answer.json()
            return played

    async def session(self, cents: int = 1000, *, key: str | None = None) -> stripe.checkout.Session:
        return await self.client.v1.checkout.sessions.create_async(
            {
                "mode": "payment",
                "success_url": "https://shop.example/thanks",
                "line_items": [
                    {
                        "quantity": 1,
                        "price_data": {"currency": "usd", "unit_amount": cents, "product_data": {"name": "credit"}},
                    }
                ],
                "metadata": {"order": "1"},
                "payment_intent_data": {"metadata": {"order": "1"}},
            },
            {"idempotency_key": key} if key is not None else {},
        )

    async def paid(self, cents: int = 1000) -> stripe.PaymentIntent:
        session = await self.session(cents)
        intent = await self.play(f"sessions/{session.id}/pay")
        return await self.client.v1.payment_intents.retrieve_async(intent["id"])

    async def events(self) -> list[str]:
        listed = await self.client.v1.events.list_async({"limit": 100})
        return [event.type for event in reversed(listed.data)]


class Taker:
    """Takes webhooks, and answers each attempt with the next of these statuses, then with 200."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.taken: asyncio.Queue[tuple[bytes, str]] = asyncio.Queue()

    async def take(self, request: web.Request) -> web.Response:
        self.taken.put_nowait((await request.read(), request.headers["Stripe-Signature"]))
        return web.Response(status=self.statuses.pop(0) if self.statuses else 200)


@pytest_asyncio.fixture
async def simulated() -> AsyncIterator[tuple[SimulatedStripe, str]]:
    simulation = SimulatedStripe(API_KEY)
    async with TestServer(simulation.app()) as server:
        yield simulation, str(server.make_url("/")).rstrip("/")


@pytest_asyncio.fixture
async def shop(simulated: tuple[SimulatedStripe, str]) -> AsyncIterator[Shop]:
    _, url = simulated
    async with aiohttp.ClientSession() as session, aiohttp.ClientSession(url) as outside:
        http = stripe.AIOHTTPClient(session=session)
        client = stripe.StripeClient(API_KEY, base_addresses={"api": url}, http_client=http, max_network_retries=0)
        yield Shop(client, outside)


@pytest.fixture
def taker() -> Taker:
    return Taker()


@pytest_asyncio.fixture
async def endpoint(taker: Taker, simulated: tuple[SimulatedStripe, str]) -> AsyncIterator[Endpoint]:
    app = web.Application()
    app.router.add_post("/hook", taker.take)
    async with TestServer(app) as server:
        endpoint = Endpoint(url=str(server.make_url("/hook")), secret=SECRET)
        simulated[0].courier.endpoint = endpoint
        yield endpoint
