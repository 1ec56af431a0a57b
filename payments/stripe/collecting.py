"""A top-up that is paid with the saved card, from its request to its end, while nobody is there.

Any number of processes may collect the same one at once, and any of them may be killed at any point: it is paid once.
The payment intent is made first, which takes nothing; then the books say which one it is; then, and only if they still
say so, it is confirmed. So a second one that is made because Stripe forgot an idempotency key (after a day) never takes
anything. A top-up fails only when it has no payment intent, or when Stripe has cancelled it: then nothing can be taken
for it any more, and another one may begin.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from ledger import FailTopup, Ledger, MarkTopupPending, TopupOver, TopupState
from payments.errors import CredentialsRefused, ProviderRefused
from payments.metrics import AUTOMATIC_TOPUPS
from payments.outcomes import Outcome, readable
from payments.smallest_units import units_in
from payments.stripe.api import Order
from payments.stripe.card_api import CardApi, CardPayment
from payments.stripe.cards import Cards, SavedCard
from payments.stripe.crediting import credit

#: Who asks for a top-up that nobody asks for.
AUTOMATIC = "automatic_topup"
#: Stripe knows an idempotency key for 24 hours; no payment intent is made for a top-up that is nearly as old.
KEY_LIVES = timedelta(hours=23)

_IN_FLIGHT = ("requested", "pending")
_log = structlog.get_logger(__name__)


class CardCollector:
    """Collects from saved cards."""

    def __init__(self, ledger: Ledger, api: CardApi, cards: Cards, clock: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._api = api
        self._cards = cards
        self._clock = clock

    async def collect(self, topup: TopupState) -> Outcome:
        """Bring the top-up as far as it goes, and book how far that is.

        Raises Break when Stripe took something else; ProviderUnavailable, CredentialsRefused, NotAtProvider, and
        ledger.LedgerUnavailable, after which the same again finds out what became of it.
        """
        if topup.status not in _IN_FLIGHT:
            return Outcome("ignored", f"{topup.topup_id}: is {topup.status}")
        if topup.reference is None:
            noted = await self._begin(topup)
            if noted.reference is None or noted.status not in _IN_FLIGHT:
                return Outcome("processed", f"{topup.topup_id}: is {noted.status}")
            topup = noted
        assert topup.reference is not None  # it was noted
        payment = await self._api.payment(topup.reference)
        if payment.status == "requires_confirmation" and await self._may_take(topup, payment):
            payment = await self._api.confirm(payment)
        return await self._booked(topup, payment)

    async def _begin(self, topup: TopupState) -> TopupState:
        """The top-up with its payment intent noted, or failed."""
        card = await self._card_in_use(topup.account_id)
        if card is None:
            return await self._fail(topup, "no card may be used any more")
        if self._clock() - topup.requested_at > KEY_LIVES:
            return await self._fail(topup, "no payment could be made for a day")
        units = units_in(topup.amount, topup.asked_currency)
        order = Order(account_id=topup.account_id, topup_id=topup.topup_id, units=units, currency=topup.asked_currency)
        try:
            made = await self._api.create_payment(order, card.customer_id, card.payment_method_id)
        except CredentialsRefused:
            raise
        except ProviderRefused as refused:
            return await self._fail(topup, str(refused))
        pending = MarkTopupPending(stream_id=topup.account_id, topup_id=topup.topup_id, reference=made.id)
        try:
            await self._ledger.submit(pending)
        except TopupOver:
            _log.info("automatic_topup.over", account_id=topup.account_id, topup_id=topup.topup_id)
        return await self._now(topup)

    async def _may_take(self, topup: TopupState, payment: CardPayment) -> bool:
        """Whether the books, read again, still want this payment, with the card that is saved now."""
        card = await self._card_in_use(topup.account_id)
        now = await self._now(topup)
        return (
            now.status in _IN_FLIGHT
            and now.reference == payment.id
            and card is not None
            and card.payment_method_id == payment.payment_method
        )

    async def _booked(self, topup: TopupState, payment: CardPayment) -> Outcome:
        reason = _why_not(payment)
        if payment.status not in ("succeeded", "processing", "canceled"):
            payment = await self._api.cancel(payment)
        match payment.status:
            case "succeeded":
                return await credit(
                    self._ledger,
                    topup,
                    payment_id=payment.id,
                    units=payment.amount_received,
                    currency=payment.currency,
                )
            case "canceled":
                failed = await self._fail(topup, reason)
                return Outcome("processed", f"{topup.topup_id}: is {failed.status}, {reason}")
            case status:
                return Outcome("processed", f"{topup.topup_id}: {payment.id} is {status}")

    async def _fail(self, topup: TopupState, reason: str) -> TopupState:
        failed = FailTopup(stream_id=topup.account_id, topup_id=topup.topup_id, reason=readable(reason))
        try:
            committed = await self._ledger.submit(failed)
        except TopupOver:
            return await self._now(topup)
        if not committed.replayed:
            AUTOMATIC_TOPUPS.labels("failed").inc()
            _log.warning(
                "automatic_topup.failed", account_id=topup.account_id, topup_id=topup.topup_id, reason=failed.reason
            )
        return await self._now(topup)

    async def _card_in_use(self, account_id: str) -> SavedCard | None:
        """The saved card; None when there is none, or automatic top-ups are off."""
        account = await self._ledger.account(account_id)
        if account is None or account.automatic_topup is None:
            return None
        return await self._cards.of_account(account_id)

    async def _now(self, topup: TopupState) -> TopupState:
        now = await self._ledger.topup(topup.account_id, topup.topup_id)
        assert now is not None  # it was requested
        return now


def _why_not(payment: CardPayment) -> str:
    """Why the payment took nothing, if it did not."""
    declined = payment.last_payment_error
    if payment.status == "requires_action":
        return "declined: authentication_required"
    if declined is None:
        return f"{payment.id} was cancelled"
    return f"declined: {declined.decline_code or declined.code}"
