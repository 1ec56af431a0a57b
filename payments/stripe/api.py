"""Stripe as we ask it: its official library on the one side, our own types on the other.

Everything that Stripe says is read into a type at once; nothing of the library goes further than this file. The field
names are Stripe's own, and amounts are whole numbers of the currency's smallest unit.
"""

from collections.abc import Awaitable
from typing import Annotated, Any, TypeVar

import aiohttp
import msgspec
import stripe

from ledger import Microcents
from payments.errors import CredentialsRefused, NotAtProvider, ProviderRefused, ProviderUnavailable

PROVIDER = "stripe"
DEFAULT_URL = "https://api.stripe.com"

#: Of one attempt. The library makes a second one, with the same Idempotency-Key.
TIMEOUT_S = 10
RETRIES = 1
#: Statuses below 500 that are over in a moment: the same key is being answered, or there were too many requests.
_PASSING = (409, 429)
#: Of a key that is wrong or revoked, or that is not for what was asked.
_NOT_LET_IN = (401, 403)
#: Objects of one list, the most that Stripe gives at once.
PAGE = 100
#: Characters of a value of metadata.
LONGEST_NOTE = 500

#: Where an order says whose it is. Both are set by us, on the session and on what is paid through it.
ACCOUNT_METADATA = "tollgate_account"
TOPUP_METADATA = "tollgate_topup"
#: By which a refund of ours is known again, for longer than Stripe remembers its idempotency key.
REFUND_METADATA = "tollgate_refund"

Units = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"^[!-~]+$(?!\n)")]
Currency = Annotated[str, msgspec.Meta(pattern="^[a-zA-Z]{3}$(?!\n)")]
Metadata = dict[str, Annotated[str, msgspec.Meta(pattern=r"^[^\x00]*$")]]

Asked = TypeVar("Asked")


class CheckoutSession(msgspec.Struct, frozen=True, kw_only=True):
    """An order: the page where a customer pays."""

    id: Id
    status: str  # open, complete, expired
    payment_status: str  # paid, unpaid, no_payment_required
    amount_total: Units | None = None
    currency: Currency | None = None
    payment_intent: Id | None = None  # there is none before somebody pays
    metadata: Metadata = {}
    url: str | None = None  # None: nobody can pay any more


class SessionKind(msgspec.Struct, frozen=True):
    """What a session is for: a ``payment``, or to save a card (``setup``)."""

    mode: str = "payment"


class PaymentIntent(msgspec.Struct, frozen=True, kw_only=True):
    """The payment itself, whatever Stripe tells of it and how often."""

    id: Id
    amount_received: Units
    currency: Currency
    metadata: Metadata = {}


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """What a payment took from the payer."""

    id: Id
    amount_captured: Units
    currency: Currency
    payment_intent: Id | None = None
    metadata: Metadata = {}


class Dispute(msgspec.Struct, frozen=True, kw_only=True):
    """A payer's bank asks for money back, or has taken it already."""

    id: Id
    status: str
    amount: Units
    currency: Currency
    payment_intent: Id | None = None

    @property
    def has_taken_money(self) -> bool:
        """A dispute takes it when it begins and gives it back when it is won.

        An inquiry (``warning_…``) never has, nor has one that was settled before it began (``prevented``). While a lost
        one is appealed (``appeal_…``), the money is still gone.
        """
        return self.status not in ("won", "prevented") and not self.status.startswith("warning_")


class Refund(msgspec.Struct, frozen=True, kw_only=True):
    """One time that something was given back."""

    id: Id
    status: str
    amount: Units
    currency: Currency
    payment_intent: Id | None = None
    metadata: Metadata = {}

    @property
    def gives_back(self) -> bool:
        """Whether the payer has the money or is getting it; days after it was made, a refund can still fail."""
        return self.status not in ("failed", "canceled")

    def is_of(self, key: str) -> bool:
        """Whether it is the one that we made for this key."""
        return self.metadata.get(REFUND_METADATA) == key


class _Page(msgspec.Struct, frozen=True):
    has_more: bool

    def require_whole(self) -> None:
        """Raises ProviderRefused when there are more: a part would be booked as all there is."""
        if self.has_more:
            raise ProviderRefused(PROVIDER, f"a payment with more than {PAGE} refunds or disputes")


class _Refunds(_Page, frozen=True):
    data: list[Refund]


class _Disputes(_Page, frozen=True):
    data: list[Dispute]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a session is to be made for."""

    account_id: str
    topup_id: str
    units: int
    currency: str


class StripeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One account at Stripe, and how it is used."""

    api_key: str
    webhook_secrets: tuple[str, ...]
    success_url: str  # where a payer comes back to
    minimum: Microcents  # of one top-up
    maximum: Microcents
    cancel_url: str | None = None
    product_name: str = "Credit"
    api_url: str = DEFAULT_URL
    timeout_s: int = TIMEOUT_S

    def __repr__(self) -> str:
        return f"StripeConfig(api_url={self.api_url!r})"


class StripeApi:
    """Each method raises ProviderUnavailable or ProviderRefused; none changes anything twice for the same key."""

    def __init__(self, config: StripeConfig, session: aiohttp.ClientSession) -> None:
        self._config = config
        self._client = client_of(config, session)

    async def create_session(self, order: Order) -> CheckoutSession:
        """The session of a top-up; for the same top-up the same session."""
        metadata = {ACCOUNT_METADATA: order.account_id, TOPUP_METADATA: order.topup_id}
        price = {
            "currency": order.currency.lower(),
            "unit_amount": order.units,
            "product_data": {"name": self._config.product_name},
        }
        asked: Any = {
            "mode": "payment",
            "line_items": [{"quantity": 1, "price_data": price}],
            "client_reference_id": order.topup_id,
            "metadata": metadata,
            "payment_intent_data": {"metadata": metadata},
            "success_url": self._config.success_url,
            # The payer's own currency instead of the one that was asked for would be a mismatch.
            "adaptive_pricing": {"enabled": False},
        }
        if self._config.cancel_url is not None:
            asked["cancel_url"] = self._config.cancel_url
        made = self._client.checkout.sessions.create_async(asked, {"idempotency_key": order.topup_id})
        return await answered(made, CheckoutSession)

    async def session(self, session_id: str) -> CheckoutSession:
        return await answered(self._client.checkout.sessions.retrieve_async(session_id), CheckoutSession)

    async def payment(self, payment_id: str) -> PaymentIntent:
        return await answered(self._client.payment_intents.retrieve_async(payment_id), PaymentIntent)

    async def disputes_of(self, payment_id: str) -> list[Dispute]:
        """All of a payment, as they stand now."""
        listed = self._client.disputes.list_async({"payment_intent": payment_id, "limit": PAGE})
        page = await answered(listed, _Disputes)
        page.require_whole()
        return page.data

    async def refunds_of(self, payment_id: str) -> list[Refund]:
        """Those of a payment, newest first."""
        listed = self._client.refunds.list_async({"payment_intent": payment_id, "limit": PAGE})
        page = await answered(listed, _Refunds)
        page.require_whole()
        return page.data

    async def refund(self, payment_id: str, units: int, *, key: str, note: str) -> Refund:
        """Give back so much of a payment; for the same key once."""
        asked: Any = {
            "payment_intent": payment_id,
            "amount": units,
            "metadata": {REFUND_METADATA: key, "reason": note[:LONGEST_NOTE]},
        }
        made = self._client.refunds.create_async(asked, {"idempotency_key": f"refund:{key}"})
        return await answered(made, Refund)


def client_of(config: StripeConfig, session: aiohttp.ClientSession) -> stripe.V1Services:
    """The library, for this account."""
    http = stripe.AIOHTTPClient(timeout=aiohttp.ClientTimeout(total=config.timeout_s), session=session)
    return stripe.StripeClient(
        config.api_key, base_addresses={"api": config.api_url}, http_client=http, max_network_retries=RETRIES
    ).v1


async def answered(asked: Awaitable[stripe.StripeObject], kind: type[Asked]) -> Asked:
    """What Stripe said, as this type."""
    try:
        said = (await asked).to_dict()
    except stripe.StripeError as error:
        if error.http_status is None or error.http_status >= 500 or error.http_status in _PASSING:
            raise ProviderUnavailable(PROVIDER, str(error)) from error
        if error.http_status == 404:
            raise NotAtProvider(PROVIDER, str(error)) from error
        if error.http_status in _NOT_LET_IN:
            raise CredentialsRefused(PROVIDER, str(error)) from error
        raise ProviderRefused(PROVIDER, str(error)) from error
    except (aiohttp.ClientError, TimeoutError) as error:  # the answer began, and broke off
        raise ProviderUnavailable(PROVIDER, repr(error)) from error
    try:
        return msgspec.convert(said, kind)
    except msgspec.ValidationError as error:
        raise ProviderUnavailable(PROVIDER, f"its answer makes no sense: {error}") from error
