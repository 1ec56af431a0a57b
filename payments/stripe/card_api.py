"""Stripe's words for customers, the cards that they have saved, and payments with a saved card.

As in ``api.py``: nothing of the library goes further than this file, and amounts are whole numbers of the currency's
smallest unit.
"""

from collections.abc import Awaitable
from typing import Annotated, Any

import aiohttp
import msgspec

from payments.errors import CredentialsRefused, ProviderRefused
from payments.stripe.api import (
    ACCOUNT_METADATA,
    PAGE,
    TOPUP_METADATA,
    Id,
    Metadata,
    Order,
    PaymentIntent,
    StripeConfig,
    answered,
    client_of,
)

Word = Annotated[str, msgspec.Meta(max_length=100, pattern=r"^[^\x00]*$")]


class Customer(msgspec.Struct, frozen=True, kw_only=True):
    """Whom cards are saved for."""

    id: Id


class SetupSession(msgspec.Struct, frozen=True, kw_only=True):
    """A page where a customer saves a card, without paying."""

    id: Id
    mode: str
    customer: Id | None = None
    setup_intent: Id | None = None
    metadata: Metadata = {}
    url: str | None = None


class CardDetails(msgspec.Struct, frozen=True, kw_only=True):
    """What may be shown of a card."""

    brand: Word
    last4: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{4}$(?!\n)")]
    exp_month: Annotated[int, msgspec.Meta(ge=1, le=12)]
    exp_year: Annotated[int, msgspec.Meta(ge=2000, le=9999)]


class PaymentMethod(msgspec.Struct, frozen=True, kw_only=True):
    """A card that was entered. ``customer`` None: it is saved for nobody any more."""

    id: Id
    created: int  # seconds since 1970
    customer: Id | None = None
    card: CardDetails | None = None  # None: it is something else than a card


class SetupIntent(msgspec.Struct, frozen=True, kw_only=True):
    """The saving of a card."""

    id: Id
    status: str
    payment_method: PaymentMethod | None = None


class Declined(msgspec.Struct, frozen=True, kw_only=True):
    """Why a payment was not made."""

    code: Word | None = None
    decline_code: Word | None = None


class CardPayment(PaymentIntent, frozen=True, kw_only=True):
    """A payment with a saved card, by somebody who is not there."""

    status: Word
    payment_method: Id | None = None
    last_payment_error: Declined | None = None


class _Methods(msgspec.Struct, frozen=True):
    data: list[PaymentMethod]


class CardApi:
    """Each method raises ProviderUnavailable or ProviderRefused; none changes anything twice for the same key."""

    def __init__(self, config: StripeConfig, session: aiohttp.ClientSession) -> None:
        self._config = config
        self._client = client_of(config, session)

    async def create_customer(self, account_id: str) -> Customer:
        """Somebody for whom cards can be saved; for the same account, for a day at least, the same."""
        asked: Any = {"metadata": {ACCOUNT_METADATA: account_id}}
        made = self._client.customers.create_async(asked, {"idempotency_key": f"customer:{account_id}"})
        return await answered(made, Customer)

    async def create_session(self, account_id: str, customer_id: str) -> SetupSession:
        """A page where the customer saves a card."""
        asked: Any = {
            "mode": "setup",
            "customer": customer_id,
            "payment_method_types": ["card"],
            "metadata": {ACCOUNT_METADATA: account_id},
            "success_url": self._config.success_url,
        }
        if self._config.cancel_url is not None:
            asked["cancel_url"] = self._config.cancel_url
        return await answered(self._client.checkout.sessions.create_async(asked), SetupSession)

    async def setup(self, setup_id: str) -> SetupIntent:
        """The saving of a card, with the card as it is now."""
        asked = self._client.setup_intents.retrieve_async(setup_id, {"expand": ["payment_method"]})
        return await answered(asked, SetupIntent)

    async def cards_of(self, customer_id: str) -> list[PaymentMethod]:
        """What is saved for the customer, newest first; at most a page."""
        asked: Any = {"customer": customer_id, "type": "card", "limit": PAGE}
        return (await answered(self._client.payment_methods.list_async(asked), _Methods)).data

    async def detach(self, method_id: str) -> None:
        """Nobody can take money with it any more; one that was detached before stays so."""
        try:
            await answered(self._client.payment_methods.detach_async(method_id), PaymentMethod)
        except CredentialsRefused:
            raise
        except ProviderRefused:
            method = await answered(self._client.payment_methods.retrieve_async(method_id), PaymentMethod)
            if method.customer is not None:
                raise

    async def payment(self, payment_id: str) -> CardPayment:
        return await answered(self._client.payment_intents.retrieve_async(payment_id), CardPayment)

    async def create_payment(self, order: Order, customer_id: str, method_id: str) -> CardPayment:
        """A payment that takes nothing before it is confirmed; for the same top-up, for a day at least, the same."""
        asked: Any = {
            "amount": order.units,
            "currency": order.currency.lower(),
            "customer": customer_id,
            "payment_method": method_id,
            "payment_method_types": ["card"],
            "description": self._config.product_name,
            "metadata": {ACCOUNT_METADATA: order.account_id, TOPUP_METADATA: order.topup_id},
        }
        made = self._client.payment_intents.create_async(asked, {"idempotency_key": order.topup_id})
        return await answered(made, CardPayment)

    async def confirm(self, payment: CardPayment) -> CardPayment:
        """Take the money, once; the payment as it is then, also when the card was declined."""
        asked: Any = {"off_session": True}
        made = self._client.payment_intents.confirm_async(
            payment.id, asked, {"idempotency_key": f"confirm:{payment.id}"}
        )
        return await self._or_as_it_is(answered(made, CardPayment), payment.id)

    async def cancel(self, payment: CardPayment) -> CardPayment:
        """Take no money any more, if that is still possible; the payment as it is then."""
        made = self._client.payment_intents.cancel_async(payment.id)
        return await self._or_as_it_is(answered(made, CardPayment), payment.id)

    async def _or_as_it_is(self, asked: Awaitable[CardPayment], payment_id: str) -> CardPayment:
        try:
            return await asked
        except CredentialsRefused:
            raise
        except ProviderRefused:  # declined, or somebody else was faster
            return await self.payment(payment_id)
