"""A top-up from the customer's wish to the page where it is paid.

The wish is committed before Stripe hears of it, and its id is Stripe's idempotency key: so there is no payment that was
not asked for, and whoever repeats a request, because its answer was lost, comes to the same page.
"""

import msgspec
import structlog

from accounts import account_of
from ledger import FailTopup, Ledger, MarkTopupPending, Microcents, RequestTopup, TopupState, cents_text, new_id
from ledger.events import Paid
from payments.errors import AmountRefused, CredentialsRefused, ProviderRefused, TopupClosed
from payments.outcomes import readable
from payments.smallest_units import major_units, units_in
from payments.stripe.api import PROVIDER, CheckoutSession, Order, StripeApi
from payments.topup_ids import topup_id_of

_log = structlog.get_logger(__name__)


class Checkout(msgspec.Struct, frozen=True, kw_only=True):
    """Where a top-up is paid."""

    topup_id: str
    session_id: str
    url: str


class Checkouts:
    """Sessions at Stripe for customers who want to pay between ``minimum`` and ``maximum``, both included."""

    def __init__(self, ledger: Ledger, api: StripeApi, *, minimum: Microcents, maximum: Microcents) -> None:
        self._ledger = ledger
        self._api = api
        self._minimum = minimum
        self._maximum = maximum

    async def begin(
        self, account_id: str, *, amount: Microcents, requested_by: str, idempotency_key: str | None
    ) -> Checkout:
        """A top-up and the page where it is paid; for the same key the same ones.

        Raises AmountRefused, TopupClosed, ProviderUnavailable, ProviderRefused; accounts.AccountNotFound; the ledger's
        IdempotencyMismatch and LedgerUnavailable.
        """
        account = await account_of(self._ledger, account_id)
        units = units_between(amount, account.currency, smallest=self._minimum, largest=self._maximum)
        topup_id = new_id("topup") if idempotency_key is None else topup_id_of(account_id, idempotency_key)
        await self._ledger.submit(
            RequestTopup(
                stream_id=account_id,
                topup_id=topup_id,
                provider=PROVIDER,
                amount_microcents=amount,
                asked=Paid(account.currency, major_units(units, account.currency)),
                requested_by=requested_by,
                idempotency_key=topup_id,
            )
        )
        order = Order(account_id=account_id, topup_id=topup_id, units=units, currency=account.currency)
        topup = await self._topup(order)
        session = await self._session(topup, order)
        if session.url is None:
            raise TopupClosed(topup_id, session.status)
        return Checkout(topup_id=topup_id, session_id=session.id, url=session.url)

    async def _session(self, topup: TopupState, order: Order) -> CheckoutSession:
        # Stripe forgets an idempotency key after a day; the books do not forget the session, and one top-up has one.
        if topup.reference is not None:
            return await self._api.session(topup.reference)
        if topup.status != "requested":
            raise TopupClosed(topup.topup_id, topup.status)
        try:
            session = await self._api.create_session(order)
        except ProviderRefused as refused:
            if not isinstance(refused, CredentialsRefused):  # once a key is mended, the same request goes on
                failed = FailTopup(stream_id=order.account_id, topup_id=order.topup_id, reason=readable(str(refused)))
                await self._ledger.submit(failed)
            raise
        await self._ledger.submit(
            MarkTopupPending(stream_id=order.account_id, topup_id=order.topup_id, reference=session.id)
        )
        _log.info("topup.pending", account_id=order.account_id, topup_id=order.topup_id, reference=session.id)
        return session

    async def _topup(self, order: Order) -> TopupState:
        topup = await self._ledger.topup(order.account_id, order.topup_id)
        assert topup is not None  # its request was just committed
        return topup


def units_between(amount: Microcents, currency: str, *, smallest: Microcents, largest: Microcents) -> int:
    """An amount to top up by, in the currency's smallest unit. Raises AmountRefused."""
    if not smallest <= amount <= largest:
        raise AmountRefused(f"a top-up is from {cents_text(smallest)} to {cents_text(largest)} cents")
    return units_in(amount, currency)
