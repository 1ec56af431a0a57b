"""The routes of USDC and its watchers on one side, a real EVM node on the other."""

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any

from aiohttp.test_utils import TestClient, TestServer
from bip32 import BIP32
from msgspec.structs import replace

from accounts import Authenticator, Tokens
from ledger import Ledger
from payments import Chain, TopupRoutes, UsdcConfig, UsdcRoutes, usdc_road
from payments.usdc.chain import Watcher, open_watcher
from pricing import NoExchangeRate
from tests.conftest import Clock
from tests.integration.payments.conftest import Answer, Payer, Till, app_of

from .dev_chain import DevChain
from .odd_node import OddNode

SECRET = "whsec_chain"
CONFIRMATIONS = 3


class Rates:
    """A price book's rates for a dollar, until a test says otherwise."""

    def __init__(self) -> None:
        self.yuan: Decimal | None = Decimal("7.1")

    def __call__(self, currency: str, account_currency: str, at: datetime) -> Decimal | None:
        if currency == account_currency:
            return None
        if account_currency != "CNY" or self.yuan is None:
            raise NoExchangeRate(currency, account_currency)
        return self.yuan


class UsdcTill(Till):
    """One process of ours, a chain, and a watcher of it that looks when it is told to."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        client: Any,
        tokens: Tokens,
        *,
        dev: DevChain,
        config: Chain,
        wallet: BIP32,
    ) -> None:
        self.ledger = ledger
        self.clock = clock
        self.client: TestClient[Any, Any] = client
        self.tokens = tokens
        self.dev = dev
        self.chain_config = config
        self.wallet = wallet  # the seller's, of which the server knows nothing but its public side
        self.rates = Rates()
        self.odd: list[OddNode] = []
        self.watcher: Watcher

    async def chains(self, payer: Payer) -> Any:
        answer = await self.call("GET", "/v1/topup/usdc/chains", payer.secret)
        assert answer.status == 200, answer
        return answer.body

    async def address(self, payer: Payer) -> str:
        return str((await self.chains(payer))[0]["deposit_address"])

    async def deposits(self, payer: Payer) -> Any:
        answer = await self.call("GET", "/v1/topup/usdc/deposits", payer.secret)
        assert answer.status == 200, answer
        return answer.body

    async def look(self, watcher: Watcher | None = None) -> None:
        """Time passes, and the chain is looked at."""
        self.clock.advance(seconds=60)
        assert await (watcher or self.watcher).look_if_due()

    async def confirm(self) -> None:
        """As many blocks as a payment in the newest one needs, and a look."""
        await self.dev.mine(CONFIRMATIONS - 1)
        await self.look()

    async def push(self, body: bytes, signature: str, chain: str = "dev") -> Answer:
        return await self.call("POST", f"/v1/topup/usdc/webhook/{chain}", body=body, X_Alchemy_Signature=signature)

    @asynccontextmanager
    async def another_watcher(self, **changed: Any) -> AsyncIterator[Watcher]:
        """As of another process."""
        config = replace(self.chain_config, **changed)
        async with open_watcher(config, self.ledger, self.rates, self.clock) as watcher:
            yield watcher


@asynccontextmanager
async def open_usdc_till(
    ledger: Ledger, clock: Clock, dev: DevChain, *, odd_nodes: int = 0, configured: bool = True, **changed: Any
) -> AsyncIterator[UsdcTill]:
    """``odd_nodes``: so many stand between the watcher and the chain."""
    tokens = Tokens(b"a server secret of 32 bytes ....")
    authenticator = Authenticator(ledger, tokens, clock=clock, monotonic=lambda: clock.now.timestamp())
    async with AsyncExitStack() as stack:
        odd = [OddNode(dev.url) for _ in range(odd_nodes)]
        servers = [await stack.enter_async_context(TestServer(node.app())) for node in odd]
        urls = tuple(str(server.make_url("/")) for server in servers) or (dev.url,)
        chain = replace(
            Chain(
                name="dev",
                chain_id=dev.chain_id,
                token=dev.token,
                rpc_urls=urls,
                confirmations=CONFIRMATIONS,
                minimum_units=1_000_000,
                agreeing_nodes=min(2, len(urls)),
                webhook_secret=SECRET,
                timeout_s=2,
            ),
            **changed,
        )
        # Another wallet for each test: what was sent in the one before is nobody's.
        wallet = BIP32.from_xpriv(BIP32.from_seed(secrets.token_bytes(32)).get_xpriv_from_path("m/44h/60h/0h"))
        road = usdc_road(UsdcConfig(xpub=wallet.get_xpub(), chains=(chain,)), ledger, clock) if configured else None
        routes = [*TopupRoutes(ledger, authenticator).routes(), *UsdcRoutes(authenticator, road).routes()]
        client = await stack.enter_async_context(TestClient(TestServer(app_of(routes))))
        till = UsdcTill(ledger, clock, client, tokens, dev=dev, config=chain, wallet=wallet)
        till.odd = odd
        till.watcher = await stack.enter_async_context(open_watcher(chain, ledger, till.rates, clock))
        yield till
