"""The money that Stripe holds: balance transactions, each a movement with its fee, and payouts of what they add up to.

A transaction follows from what Stripe tells of: a charge, a refund, a dispute, a payout. ``net`` is ``amount`` less
``fee``. What a test plants here is in nobody's notifications.
"""

import time
from typing import Final

from simulated_stripe.objects import Books, Object, require

#: Of a card payment: a part of it, and so much besides.
FEE_PER_THOUSAND: Final = 29
FEE_BESIDES: Final = 30
DISPUTE_FEE: Final = 1500
AVAILABLE_AFTER_S: Final = 2 * 24 * 3600

#: What is told, and what it is in the balance: type, reporting category, and whether the balance grows.
_MOVEMENTS: Final = {
    "charge.succeeded": ("charge", "charge", 1),
    "refund.created": ("refund", "refund", -1),
    "refund.failed": ("refund_failure", "refund_failure", 1),
    "charge.dispute.funds_withdrawn": ("adjustment", "dispute", -1),
    "charge.dispute.funds_reinstated": ("adjustment", "dispute_reversal", 1),
    "payout.created": ("payout", "payout", -1),
    "payout.failed": ("payout_failure", "payout_reversal", 1),
}


class Balance:
    """The transactions of one account, among its other objects."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def follow(self, type_: str, subject: Object) -> None:
        """Keep what Stripe is about to tell of, where it moves money."""
        if type_ not in _MOVEMENTS:
            return
        kind, category, sign = _MOVEMENTS[type_]
        transaction = self._add(subject, kind, category, sign * subject["amount"], _fee_of(category, subject["amount"]))
        if type_ == "payout.failed":
            subject["failure_balance_transaction"] = transaction["id"]
        elif type_ in ("charge.succeeded", "refund.created", "payout.created"):
            subject["balance_transaction"] = transaction["id"]

    def charge_fee(self, amount: int, currency: str) -> Object:
        """Stripe bills a service of its own."""
        return self._add(None, "stripe_fee", "fee", -amount, 0, currency=currency)

    def listed(self, having: dict[str, str]) -> list[Object]:
        """The transactions that fit the filters of Stripe's list, newest first, with their sources where asked for."""
        found = [each for each in self._books.all_of("balance_transaction") if _fits(each, having)]
        found.sort(key=lambda each: each["created"], reverse=True)
        if "data.source" not in (having.get("expand[0]"), having.get("expand[]")):
            return found
        return [{**each, "source": self._books.objects.get(each["source"], each["source"])} for each in found]

    # --- payouts

    def pay_out(self, currency: str) -> Object:
        """All that the account has in a currency goes to its bank."""
        due = [
            each
            for each in self._books.all_of("balance_transaction", currency=currency)
            if each["_payout"] is None and each["reporting_category"] not in ("payout", "payout_reversal")
        ]
        amount = sum(each["net"] for each in due)
        require(amount > 0, "there is nothing to pay out", code="balance_insufficient")
        payout = self._books.new(
            "payout",
            "po",
            amount=amount,
            arrival_date=int(time.time()) + AVAILABLE_AFTER_S,
            automatic=True,
            balance_transaction=None,
            currency=currency,
            failure_balance_transaction=None,
            failure_code=None,
            method="standard",
            reconciliation_status="in_progress",
            status="in_transit",
        )
        for each in due:
            each["_payout"] = payout["id"]
        self._books.tell("payout.created", payout)
        return payout

    def arrive(self, payout: Object) -> None:
        """As far as Stripe knows: the bank can still send it back."""
        require(payout["status"] == "in_transit", "this payout is over")
        payout.update(status="paid", reconciliation_status="completed")
        self._books.tell("payout.paid", payout)
        self._books.tell("payout.reconciliation_completed", payout)

    def fail(self, payout: Object) -> None:
        """The bank does not take it; what it paid out waits for the next one."""
        require(payout["status"] in ("in_transit", "paid"), "this payout failed before")
        payout.update(status="failed", failure_code="account_closed")
        for each in self._books.all_of("balance_transaction", _payout=payout["id"]):
            each["_payout"] = None
        self._books.tell("payout.failed", payout)

    # --- what a test plants

    def plant_payment(self, amount: int, currency: str, created: int | None = None) -> Object:
        """A payment that no order was made for, and that nobody is told of; gives its transaction."""
        intent = self._books.new(
            "payment_intent", "pi", amount=amount, amount_received=amount, currency=currency, metadata={},
            status="succeeded",
        )  # fmt: skip
        charge = self._books.new(
            "charge", "ch", amount=amount, amount_captured=amount, amount_refunded=0, captured=True, currency=currency,
            metadata={}, paid=True, payment_intent=intent["id"], status="succeeded",
        )  # fmt: skip
        planted = self._add(charge, "charge", "charge", amount, _fee_of("charge", amount))
        planted["created"] = planted["created"] if created is None else created
        return planted

    def forget(self, transaction: Object) -> None:
        """As if it had never happened."""
        del self._books.objects[transaction["id"]]

    def alter(self, transaction: Object, amount: int) -> None:
        """Another amount than was paid."""
        transaction.update(amount=amount, net=amount - transaction["fee"])

    def _add(
        self, source: Object | None, kind: str, category: str, amount: int, fee: int, *, currency: str = ""
    ) -> Object:
        added = self._books.new(
            "balance_transaction",
            "txn",
            amount=amount,
            currency=currency if source is None else source["currency"],
            description=None,
            exchange_rate=None,
            fee=fee,
            fee_details=[] if fee == 0 else [{"amount": fee, "type": "stripe_fee"}],
            net=amount - fee,
            reporting_category=category,
            source=None if source is None else source["id"],
            status="pending",
            type=kind,
            _payout=None,
        )
        added["available_on"] = added["created"] + AVAILABLE_AFTER_S
        return added


def _fee_of(category: str, amount: int) -> int:
    match category:
        case "charge":
            return amount * FEE_PER_THOUSAND // 1000 + FEE_BESIDES
        case "dispute":
            return DISPUTE_FEE
        case "dispute_reversal":
            return -DISPUTE_FEE
        case _:
            return 0


def _fits(transaction: Object, having: dict[str, str]) -> bool:
    created = int(transaction["created"])
    return (
        created >= int(having.get("created[gte]", created))
        and created < int(having.get("created[lt]", created + 1))
        and having.get("payout") in (None, transaction["_payout"])
        and all(having[name] == transaction[name] for name in ("type", "currency", "source") if name in having)
    )
