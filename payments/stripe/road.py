"""Everything that one process does with one account at Stripe, put together."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

import aiohttp
import msgspec

from ledger import Ledger
from payments.inbox import Inbox
from payments.notifications import NotificationStore
from payments.stripe.api import PROVIDER, StripeApi, StripeConfig
from payments.stripe.automatic import AutomaticTopups
from payments.stripe.balance import StripeBalance
from payments.stripe.booking import StripeBooking
from payments.stripe.card_api import CardApi
from payments.stripe.cards import Cards
from payments.stripe.checkouts import Checkouts
from payments.stripe.collecting import CardCollector
from payments.stripe.payouts import PayoutBooking
from payments.stripe.refunds import Refunds
from payments.stripe.statement import StripeStatements


class StripeRoad(msgspec.Struct, frozen=True, kw_only=True):
    """How money comes in by Stripe, and goes back."""

    webhook_secrets: tuple[str, ...]
    checkouts: Checkouts
    cards: Cards
    automatic: AutomaticTopups
    refunds: Refunds
    inbox: Inbox
    statements: StripeStatements


@asynccontextmanager
async def open_stripe(config: StripeConfig, ledger: Ledger, clock: Callable[[], datetime]) -> AsyncIterator[StripeRoad]:
    """The road, until it is left; then what was begun is finished."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        api = StripeApi(config, session)
        card_api = CardApi(config, session)
        cards = Cards(ledger, card_api, clock)
        collector = CardCollector(ledger, card_api, cards, clock)
        balance = StripeBalance(config, session)
        booking = StripeBooking(ledger, api, cards, collector, PayoutBooking(ledger, balance))
        inbox = Inbox(NotificationStore(ledger.pool), {PROVIDER: booking.book}, clock)
        try:
            yield StripeRoad(
                webhook_secrets=config.webhook_secrets,
                checkouts=Checkouts(ledger, api, minimum=config.minimum, maximum=config.maximum),
                cards=cards,
                automatic=AutomaticTopups(
                    ledger, cards, collector, clock, minimum=config.minimum, maximum=config.maximum
                ),
                refunds=Refunds(ledger, api, booking),
                inbox=inbox,
                statements=StripeStatements(balance),
            )
        finally:
            await inbox.close()
