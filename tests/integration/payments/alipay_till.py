"""The routes of Alipay on one side, a simulated Alipay on the other, and everything between them over sockets."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import aiohttp
import msgspec
from aiohttp.test_utils import TestClient, TestServer

from accounts import Authenticator, Tokens
from dialects import recharge_routes
from ledger import Ledger, microcents_from_cents
from payments import AlipayCheckouts, AlipayConfig, AlipayRoad, AlipayRoutes, TopupRoutes, open_alipay
from pricing import NoExchangeRate
from simulated_alipay.notifications import Delivery
from simulated_alipay.server import SimulatedAlipay
from simulated_alipay.signatures import KeyPair, sign, signed_text
from simulated_alipay.trades import Trade
from tests.conftest import Clock

from .conftest import Answer, Payer, Till, app_of

APP_ID, SELLER_ID = "2021000000000001", "2088000000000001"
NOTIFY = "/v1/topup/alipay/notify"
#: Made once: a key takes a while.
OURS, THEIRS, NOBODYS = KeyPair.made(), KeyPair.made(), KeyPair.made()


class Rates:
    """A price book's rates: dollars for a yuan, until a test says otherwise."""

    def __init__(self) -> None:
        self.dollars: Decimal | None = Decimal("0.14")

    def __call__(self, currency: str, account_currency: str, at: datetime) -> Decimal | None:
        if currency == account_currency:
            return None
        if account_currency != "USD" or self.dollars is None:
            raise NoExchangeRate(currency, account_currency)
        return self.dollars


class AlipayTill(Till):
    """One process of ours, and Alipay."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        alipay: SimulatedAlipay,
        config: AlipayConfig,
        road: AlipayRoad | None,
        client: Any,
        tokens: Tokens,
    ) -> None:
        self.ledger = ledger
        self.clock = clock
        self.alipay = alipay
        self.alipay_config = config
        self.alipay_road = road
        self.client: TestClient[Any, Any] = client
        self.tokens = tokens
        self.rates = Rates()

    async def checkout(self, payer: Payer, cents: Any = 1000, **headers: str) -> Answer:
        return await self.call("POST", "/v1/topup/alipay/checkout", payer.secret, {"amount_cents": cents}, **headers)

    async def recharge(self, payer: Payer, amount: Any, currency: str = "CNY", provider: str = "alipay") -> Answer:
        body = {"provider": provider, "amount": amount, "currency": currency}
        return await self.call("POST", "/unipay/user_recharge.dspy", payer.secret, body)

    async def opened(self, payer: Payer, cents: int = 1000) -> Trade:
        """A trade that waits for its payer, who opened the page. Alipay tells of it when the test lets it."""
        answer = await self.checkout(payer, cents)
        assert answer.status == 201, answer
        return await self.open(answer.body["checkout_url"])

    async def open(self, url: str) -> Trade:
        async with aiohttp.ClientSession() as session, session.get(url) as page:
            assert (page.status, page.content_type) == (200, "text/html")
            assert "<form" in await page.text()
        return self.alipay.trades.get(self.order_of(url))

    def order_of(self, url: str) -> str:
        return str(self.biz_content(url)["out_trade_no"])

    def biz_content(self, url: str) -> dict[str, Any]:
        return dict(msgspec.json.decode(dict(parse_qsl(urlsplit(url).query))["biz_content"]))

    # --- what Alipay tells

    def told(self) -> list[bytes]:
        """The bodies of all notifications so far, oldest first."""
        return list(self.alipay.courier.bodies)

    async def tell(self, body: bytes, **ignored: Any) -> Answer:
        """Deliver a notification, and wait until it is processed."""
        assert self.alipay_road is not None
        answer = await self.post(body)
        await self.alipay_road.inbox.close()
        return answer

    async def post(self, body: bytes) -> Answer:
        """Deliver a notification."""
        async with self.client.post(NOTIFY, data=body) as response:
            return Answer(response.status, await response.text(), dict(response.headers))

    async def tell_all(self) -> None:
        for body in self.told():
            assert (await self.tell(body)).body == "success"


def altered(body: bytes, key: KeyPair | None = None, **changes: str) -> bytes:
    """A notification that says something else, signed with this key, or still with the signature of before."""
    fields = {**dict(parse_qsl(body.decode(), keep_blank_values=True)), **changes}
    if key is not None:
        fields["sign"] = sign(key.private, signed_text(fields, "sign", "sign_type"))
    return urlencode(fields).encode()


@asynccontextmanager
async def open_alipay_till(ledger: Ledger, clock: Clock, *, configured: bool = True) -> AsyncIterator[AlipayTill]:
    simulation = SimulatedAlipay(THEIRS, app_id=APP_ID, app_public_key=OURS.public_text, seller_id=SELLER_ID)
    simulation.courier.wishes = Delivery(held=True)
    simulation.trades.clock = lambda: clock.now.timestamp()
    tokens = Tokens(b"a server secret of 32 bytes ....")
    authenticator = Authenticator(ledger, tokens, clock=clock, monotonic=lambda: clock.now.timestamp())
    async with TestServer(simulation.app()) as server:
        config = AlipayConfig(
            app_id=APP_ID,
            app_private_key=OURS.private_text,
            alipay_public_key=THEIRS.public_text,
            seller_id=SELLER_ID,
            notify_url="https://shop.example/v1/topup/alipay/notify",
            gateway=str(server.make_url("/gateway.do")),
            minimum=microcents_from_cents(Decimal(500)),
            maximum=microcents_from_cents(Decimal(100_000)),
            timeout_s=1,
        )
        async with open_alipay(config, ledger, clock) as open_road:
            road = open_road if configured else None
            till = AlipayTill(ledger, clock, simulation, config, road, None, tokens)
            checkouts = AlipayCheckouts(ledger, road.api, till.rates, clock) if road is not None else None
            routes = [
                *TopupRoutes(ledger, authenticator).routes(),
                *AlipayRoutes(authenticator, road, checkouts).routes(),
                *recharge_routes(checkouts, authenticator),
            ]
            async with TestClient(TestServer(app_of(routes))) as client:
                till.client = client
                yield till
