"""The roads that are open: those whose provider is configured."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime

import msgspec

from ledger import Ledger
from payments.alipay.api import AlipayConfig
from payments.alipay.road import AlipayRoad, open_alipay
from payments.inbox import Inbox
from payments.reconciliation import Source
from payments.stripe.api import StripeConfig
from payments.stripe.road import StripeRoad, open_stripe
from payments.usdc.config import UsdcConfig
from payments.usdc.road import UsdcRoad, usdc_road


class PaymentsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach each provider and to know it; None: it is not configured, and everything of it is off."""

    stripe: StripeConfig | None = None
    alipay: AlipayConfig | None = None
    usdc: UsdcConfig | None = None


class Roads(msgspec.Struct, frozen=True, kw_only=True):
    """By which money comes in to one process; None: not configured."""

    stripe: StripeRoad | None
    alipay: AlipayRoad | None
    usdc: UsdcRoad | None

    @property
    def sources(self) -> dict[str, Source]:
        """Whose books ours can be compared with, by provider."""
        roads = {"stripe": self.stripe, "alipay": self.alipay}
        return {provider: road.statements for provider, road in roads.items() if road is not None}

    @property
    def inboxes(self) -> dict[str, Inbox]:
        """By provider, of those that tell of payments."""
        roads = {"stripe": self.stripe, "alipay": self.alipay}
        return {provider: road.inbox for provider, road in roads.items() if road is not None}


@asynccontextmanager
async def open_roads(config: PaymentsConfig, ledger: Ledger, clock: Callable[[], datetime]) -> AsyncIterator[Roads]:
    """The roads, until they are left; then what was begun is finished."""
    async with AsyncExitStack() as stack:
        stripe = alipay = None
        if config.stripe is not None:
            stripe = await stack.enter_async_context(open_stripe(config.stripe, ledger, clock))
        if config.alipay is not None:
            alipay = await stack.enter_async_context(open_alipay(config.alipay, ledger, clock))
        usdc = None if config.usdc is None else usdc_road(config.usdc, ledger, clock)
        yield Roads(stripe=stripe, alipay=alipay, usdc=usdc)
