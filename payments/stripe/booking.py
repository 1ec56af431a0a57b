"""From what Stripe tells to what is booked.

Events come late, twice, and in any order, and one payment is told of by several. So nothing here depends on which came
before: crediting is keyed on the payment itself; whatever takes money back credits first what it takes it from; and of
refunds and disputes only what they are now is booked, whatever the event says that they were.

An order is found by the metadata that we gave it, and then compared with our own request: its provider, session, amount
and currency. The metadata alone is never believed.
"""

from typing import Literal, TypeAlias

from ledger import (
    ExpireTopup,
    FailTopup,
    Ledger,
    Microcents,
    ReinstateTopup,
    ReverseTopup,
    TopupOver,
    TopupState,
    new_id,
)
from payments.errors import Break, NotAtProvider
from payments.outcomes import Outcome, book
from payments.smallest_units import microcents_in
from payments.stripe.api import (
    ACCOUNT_METADATA,
    PROVIDER,
    TOPUP_METADATA,
    Charge,
    CheckoutSession,
    Dispute,
    Metadata,
    PaymentIntent,
    Refund,
    SessionKind,
    StripeApi,
)
from payments.stripe.balance import TransactionSource
from payments.stripe.card_api import SetupSession
from payments.stripe.cards import Cards
from payments.stripe.collecting import AUTOMATIC, CardCollector
from payments.stripe.crediting import credit
from payments.stripe.events import read_head, read_subject
from payments.stripe.payouts import PayoutBooking

#: How money goes back at Stripe.
Kind: TypeAlias = Literal["refund", "dispute"]


NOT_OURS = Outcome("ignored", "not an order of ours")


class StripeBooking:
    """Books events. Any number of processes may book the same one at once; each effect happens once."""

    def __init__(
        self, ledger: Ledger, api: StripeApi, cards: Cards, collector: CardCollector, payouts: PayoutBooking
    ) -> None:
        self._ledger = ledger
        self._api = api
        self._cards = cards
        self._collector = collector
        self._payouts = payouts

    async def book(self, body: bytes) -> Outcome:
        """Book what an event of Stripe's says.

        Raises Break when it does not fit the books; ProviderUnavailable, ProviderRefused, and ledger.LedgerUnavailable
        or one of ledger.UNREACHABLE when it has to be tried again.
        """
        head = read_head(body)
        match head.type:
            case type_ if type_.startswith("checkout.session.") and read_subject(body, SessionKind).mode == "setup":
                return await self._card_entered(type_, read_subject(body, SetupSession))
            case "checkout.session.completed" | "checkout.session.async_payment_succeeded":
                return await self._session_completed(read_subject(body, CheckoutSession))
            case "checkout.session.async_payment_failed":
                return await self._session_failed(read_subject(body, CheckoutSession))
            case "checkout.session.expired":
                return await self._session_expired(read_subject(body, CheckoutSession))
            case "payment_intent.succeeded":
                return await self._paid(read_subject(body, PaymentIntent))
            case "payment_intent.payment_failed" | "payment_intent.canceled":
                return await self._not_paid(read_subject(body, PaymentIntent))
            case "charge.refunded":
                return await self._refunded(head.id, read_subject(body, Charge))
            case "refund.failed":
                return await self._changed(head.id, read_subject(body, Refund))
            case type_ if type_.startswith("charge.dispute."):
                return await self._changed(head.id, read_subject(body, Dispute))
            case type_ if type_.startswith("payout."):
                return await self._payouts.book(type_, read_subject(body, TransactionSource).id)
            case type_:
                return Outcome("ignored", f"{type_} moves no money of ours")

    async def book_taken_back(self, topup: TopupState, payment_id: str, reason: str) -> str:
        """Book what Stripe has taken and given back of a payment by now; says what that is. Raises as ``book``.

        All of it, whatever we heard of: a dispute that was won leaves room for a refund, and who looks before that and
        books after it undoes both. When more is taken back than was paid, as by a dispute of all after a refund, what
        was paid is booked, and the rest is a break. ``reason`` is what led us here. What is booked after each look at
        Stripe has a name of its own: the same state can be right, then wrong, then right again, and is never taken for
        what was booked before.
        """
        totals, told = await self._taken_back(topup, payment_id)
        booked = None
        # Somebody else may book what was true a moment before us: we are done when what we booked is still so.
        while told != booked:
            why = f"{reason}: {told} ({new_id('look')})"
            refunded = min(totals["refund"], topup.amount)
            bookable: dict[Kind, int] = {
                "refund": refunded,
                "dispute": min(totals["dispute"], topup.amount - refunded),
            }
            for command in (ReinstateTopup, ReverseTopup):  # in this order, so that there is room
                for kind, total in bookable.items():
                    await self._bring(command, topup, kind, Microcents(total), why)
            booked, (totals, told) = told, await self._taken_back(topup, payment_id)
        if sum(totals.values()) > topup.amount:
            raise Break("excess", f"{topup.topup_id}: more is taken back than was paid: {told}")
        return told

    async def _card_entered(self, type_: str, session: SetupSession) -> Outcome:
        if type_ != "checkout.session.completed":
            return Outcome("ignored", f"{session.id}: no card was entered")
        return await self._cards.keep(session)

    async def _session_completed(self, session: CheckoutSession) -> Outcome:
        topup = await self._topup_of_session(session)
        if topup is None:
            return NOT_OURS
        if session.payment_status == "unpaid":
            return Outcome("ignored", f"{topup.topup_id}: the payment is under way")
        if session.payment_status != "paid":
            raise Break("not_paid", f"{topup.topup_id}: {session.id} is {session.payment_status}")
        if session.payment_intent is None or session.amount_total is None or session.currency is None:
            raise Break("no_payment", f"{topup.topup_id}: {session.id} is paid without a payment")
        return await self._credit(topup, session.payment_intent, session.amount_total, session.currency)

    async def _session_failed(self, session: CheckoutSession) -> Outcome:
        topup = await self._topup_of_session(session)
        if topup is None:
            return NOT_OURS
        reason = f"the payment of {session.id} failed"
        return await self._end(FailTopup(stream_id=topup.account_id, topup_id=topup.topup_id, reason=reason))

    async def _session_expired(self, session: CheckoutSession) -> Outcome:
        topup = await self._topup_of_session(session)
        if topup is None:
            return NOT_OURS
        return await self._end(ExpireTopup(stream_id=topup.account_id, topup_id=topup.topup_id))

    async def _paid(self, payment: PaymentIntent) -> Outcome:
        topup = await self._topup_of(payment.metadata)
        if topup is None:
            return NOT_OURS
        return await self._credit(topup, payment.id, payment.amount_received, payment.currency)

    async def _not_paid(self, payment: PaymentIntent) -> Outcome:
        topup = await self._topup_of(payment.metadata)
        if topup is None:
            return NOT_OURS
        if topup.requested_by != AUTOMATIC:
            return Outcome("ignored", f"{topup.topup_id}: its payer may try again on the page")
        if topup.reference not in (None, payment.id):
            raise Break("payment", f"{topup.topup_id}: was to be paid by {topup.reference}, not by {payment.id}")
        return await self._collector.collect(topup)

    async def _refunded(self, event_id: str, charge: Charge) -> Outcome:
        topup = await self._topup_of(charge.metadata)
        if topup is None or charge.payment_intent is None:
            return NOT_OURS
        await self._credit(topup, charge.payment_intent, charge.amount_captured, charge.currency)
        told = await self.book_taken_back(topup, charge.payment_intent, event_id)
        return Outcome("processed", f"{topup.topup_id}: {told}")

    async def _changed(self, event_id: str, told: Refund | Dispute) -> Outcome:
        payment, topup = await self._payment_of(told.payment_intent)
        if payment is None or topup is None:
            return NOT_OURS
        said = await self.book_taken_back(topup, payment.id, event_id)
        return Outcome("processed", f"{topup.topup_id}: {said}")

    async def _taken_back(self, topup: TopupState, payment_id: str) -> tuple[dict[Kind, Microcents], str]:
        """What refunds and disputes take of a payment by now, and what they are, for people to read."""
        refunds, disputes = await self._api.refunds_of(payment_id), await self._api.disputes_of(payment_id)
        all_of_it: list[Refund | Dispute] = [*refunds, *disputes]
        for each in all_of_it:
            self._require_currency(topup, each.currency)
        totals: dict[Kind, Microcents] = {
            "refund": self._sum(topup, [each.amount for each in refunds if each.gives_back]),
            "dispute": self._sum(topup, [each.amount for each in disputes if each.has_taken_money]),
        }
        return totals, ", ".join(f"{each.id} {each.status}" for each in all_of_it)

    def _sum(self, topup: TopupState, units: list[int]) -> Microcents:
        return microcents_in(sum(units), topup.asked_currency)

    async def _bring(
        self,
        command: type[ReverseTopup | ReinstateTopup],
        topup: TopupState,
        kind: Kind,
        total: Microcents,
        reason: str,
    ) -> None:
        await book(
            self._ledger,
            command(
                stream_id=topup.account_id, topup_id=topup.topup_id, kind=kind, total_microcents=total, reason=reason
            ),
        )

    async def _payment_of(self, payment_id: str | None) -> tuple[PaymentIntent | None, TopupState | None]:
        """A payment that something was taken back of, and its top-up, credited; None and None: it is not ours."""
        if payment_id is None:
            return None, None
        try:
            payment = await self._api.payment(payment_id)
        except NotAtProvider as missing:
            raise Break("unknown", str(missing)) from missing
        topup = await self._topup_of(payment.metadata)
        if topup is not None:
            await self._credit(topup, payment.id, payment.amount_received, payment.currency)
        return payment, topup

    async def _topup_of_session(self, session: CheckoutSession) -> TopupState | None:
        topup = await self._topup_of(session.metadata)
        # Without a reference, we were killed between making the session and noting it.
        if topup is not None and topup.reference not in (None, session.id):
            raise Break("session", f"{topup.topup_id}: was to be paid by {topup.reference}, not by {session.id}")
        return topup

    async def _topup_of(self, metadata: Metadata) -> TopupState | None:
        """What was asked for; None when it was not us who asked. Raises Break when we have not asked for this."""
        account_id, topup_id = metadata.get(ACCOUNT_METADATA), metadata.get(TOPUP_METADATA)
        if account_id is None and topup_id is None:
            return None
        topup = await self._ledger.topup(account_id or "", topup_id or "")
        if topup is None:
            raise Break("unknown", f"account {account_id} has not asked for a top-up {topup_id}")
        if topup.provider != PROVIDER:
            raise Break("provider", f"{topup_id}: was to be paid by {topup.provider}")
        return topup

    async def _credit(self, topup: TopupState, payment_id: str, units: int, currency: str) -> Outcome:
        return await credit(self._ledger, topup, payment_id=payment_id, units=units, currency=currency)

    async def _end(self, command: FailTopup | ExpireTopup) -> Outcome:
        try:
            await self._ledger.submit(command)
        except TopupOver as over:
            return Outcome("ignored", str(over))
        return Outcome("processed", f"{command.topup_id}: {type(command).__name__}")

    def _require_currency(self, topup: TopupState, currency: str) -> None:
        if currency.upper() != topup.asked_currency:
            raise Break("currency", f"{topup.topup_id}: asked in {topup.asked_currency}, told of {currency}")
