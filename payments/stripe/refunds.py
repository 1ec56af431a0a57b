"""Refunds from our side: through Stripe, and booked from its answer or from its notification, whichever comes first."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from accounts import account_of
from ledger import Ledger, Microcents, TopupState, cents_text, load_queries
from payments.errors import NotRefundable, TopupNotFound
from payments.smallest_units import microcents_in, units_in
from payments.stripe.api import PROVIDER, Refund, StripeApi
from payments.stripe.booking import StripeBooking

#: How long one refund of an account waits for another: as long as that may ask Stripe.
ANOTHER_TAKES_S = 120

_queries = load_queries("payments")
_own_queries = load_queries("payments.stripe")
_log = structlog.get_logger(__name__)


class Refunds:
    """Gives back what customers paid and have not spent, of an account one refund after the other."""

    def __init__(self, ledger: Ledger, api: StripeApi, booking: StripeBooking) -> None:
        self._ledger = ledger
        self._api = api
        self._booking = booking
        self._waiting = asyncio.Lock()

    async def refund(
        self, topup_id: str, *, amount: Microcents | None, reason: str, idempotency_key: str | None
    ) -> tuple[TopupState, Microcents]:
        """Give back ``amount``, or all that can be; returns the top-up as it is then, and what was given back.

        The same key again gives nothing back a second time. Without one, the same amount for the same reason is the
        same refund: nobody knows whether an answer was lost, or as much is to be given back once more. Raises
        TopupNotFound, NotRefundable, AmountRefused; Break, ProviderRefused, and ProviderUnavailable or
        ledger.LedgerUnavailable, after which the same again finds out what became of it.
        """
        topup = await self._topup(topup_id)
        async with self._alone(topup.account_id):
            return await self._refund(topup_id, amount, reason, idempotency_key)

    async def _refund(
        self, topup_id: str, amount: Microcents | None, reason: str, idempotency_key: str | None
    ) -> tuple[TopupState, Microcents]:
        topup = await self._topup(topup_id)
        if topup.payment_id is None or topup.provider != PROVIDER:
            raise NotRefundable(topup_id, f"it is {topup.status}, by {topup.provider}")
        key = idempotency_key or _key_of(topup_id, amount, reason)
        made_before = [each for each in await self._api.refunds_of(topup.payment_id) if each.is_of(key)]
        refund = made_before[0] if made_before else await self._make(topup, topup.payment_id, amount, key, reason)
        await self._booking.book_taken_back(topup, topup.payment_id, f"{refund.id}: {reason}")
        given_back = microcents_in(refund.amount, topup.asked_currency)
        if not refund.gives_back:
            raise NotRefundable(topup_id, f"{refund.id} is {refund.status}; another key or reason makes another one")
        if amount not in (None, given_back):
            raise NotRefundable(topup_id, f"{refund.id} has this key, and gave back {cents_text(given_back)} cents")
        _log.info("topup.refunded", topup_id=topup_id, refund_id=refund.id, status=refund.status)
        return await self._topup(topup_id), given_back

    async def _make(
        self, topup: TopupState, payment_id: str, wished: Microcents | None, key: str, reason: str
    ) -> Refund:
        most = await self._refundable(topup)
        amount = most if wished is None else wished
        if not 0 < amount <= most:
            rule = f"{cents_text(amount)} cents are not above zero and at most the {cents_text(most)} that are left"
            raise NotRefundable(topup.topup_id, rule)
        units = units_in(amount, topup.asked_currency)
        return await self._api.refund(payment_id, units, key=key, note=reason)

    async def _refundable(self, topup: TopupState) -> Microcents:
        """What was paid, is not taken back, and is neither held nor spent. Credit grants are no part of it.

        A request may still spend it while Stripe is asked; what it spends is debt then, as after a dispute.
        """
        account = await account_of(self._ledger, topup.account_id)
        most = min(Microcents(topup.amount - topup.reversed), account.refundable)
        whole = microcents_in(1, topup.asked_currency)
        return Microcents(most - most % whole)

    @asynccontextmanager
    async def _alone(self, account_id: str) -> AsyncIterator[None]:
        """No other refund of the account, in whatever process: together they could give back more than is left.

        In this process there is one at a time, so that they never have all connections of the pool between them.
        """
        async with self._waiting, self._ledger.pool.acquire() as connection:
            await connection.execute(_own_queries["lock_refunds"], account_id, timeout=ANOTHER_TAKES_S)
            yield  # the pool lets go of the lock with the connection

    async def _topup(self, topup_id: str) -> TopupState:
        shards = list(range(self._ledger.shards))
        account_id = await self._ledger.pool.fetchval(_queries["account_of_topup"], shards, topup_id)
        topup = None if account_id is None else await self._ledger.topup(account_id, topup_id)
        if topup is None:
            raise TopupNotFound(topup_id)
        return topup


def _key_of(topup_id: str, amount: Microcents | None, reason: str) -> str:
    asked = "all" if amount is None else cents_text(amount)
    return f"{topup_id}:{asked}:{hashlib.sha256(reason.encode()).hexdigest()[:26]}"
