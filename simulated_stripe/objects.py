"""What Stripe keeps, and how one thing leads to another: a session is paid, a payment refunded, a charge disputed.

Objects are dicts in the shape in which Stripe sends them. Every change that Stripe tells of is an event with a copy of
the object as it was then.
"""

import copy
import secrets
import time
from collections.abc import Callable
from typing import Any, Final

API_VERSION: Final = "2026-10-28.endive"
SESSION_LIVES_S: Final = 24 * 3600

Object = dict[str, Any]

#: The ways a dispute ends. Money goes back for the first; the last two never took any.
CLOSED: Final = ("won", "lost", "warning_closed", "prevented")


class StripeRefusal(Exception):
    """A request that Stripe would answer with an error of this status, type and code."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        code: str | None = None,
        decline_code: str | None = None,
        payment: Object | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.code = code
        self.decline_code = decline_code
        self.payment = payment  # the payment intent that was declined

    @property
    def error(self) -> Object:
        """As it stands in an answer, and in the payment that was declined."""
        declined = {} if self.decline_code is None else {"decline_code": self.decline_code}
        return {"type": self.kind, "message": str(self), "code": self.code, **declined}


class Books:
    """All objects by their ids, and all events in order. ``told`` is called with each new event.

    ``movements`` is called before that with the type and the object itself, so that the balance moves first.
    """

    def __init__(self, told: Callable[[Object], None]) -> None:
        self.objects: dict[str, Object] = {}
        self.events: list[Object] = []
        self.clock = time.time
        self.movements: Callable[[str, Object], None] = lambda type_, subject: None
        self._told = told

    def get(self, id_: str, kind: str) -> Object:
        """The object. Raises StripeRefusal 404 when there is none of this kind."""
        found = self.objects.get(id_)
        if found is None or found["object"] != kind:
            raise StripeRefusal(f"No such {kind}: '{id_}'", status=404, code="resource_missing")
        return found

    def all_of(self, kind: str, **having: str) -> list[Object]:
        """The objects of a kind, newest first, whose fields have these values."""
        found = [each for each in self.objects.values() if each["object"] == kind]
        return [each for each in reversed(found) if all(each[name] == value for name, value in having.items())]

    # --- sessions

    def create_session(self, fields: dict[str, Any], url: str) -> Object:
        """A Checkout Session of mode payment with prices given inline. ``url`` is where sessions are paid."""
        prices = [
            (item["price_data"], int(item.get("quantity", "1"))) for item in fields.get("line_items", {}).values()
        ]
        currencies = {price["currency"].lower() for price, _ in prices}
        if len(currencies) != 1:
            raise StripeRefusal("the line items need one currency")
        total = sum(int(price["unit_amount"]) * quantity for price, quantity in prices)
        if total <= 0:
            raise StripeRefusal("the amount must be above zero", code="amount_too_small")
        session = self.new(
            "checkout.session",
            "cs_test",
            amount_subtotal=total,
            amount_total=total,
            cancel_url=fields.get("cancel_url"),
            client_reference_id=fields.get("client_reference_id"),
            currency=currencies.pop(),
            customer=None,
            expires_at=int(fields.get("expires_at", int(time.time()) + SESSION_LIVES_S)),
            metadata=fields.get("metadata", {}),
            mode="payment",
            payment_intent=None,
            payment_method_types=["card"],
            payment_status="unpaid",
            status="open",
            success_url=fields.get("success_url"),
            url=None,
        )
        session["url"] = f"{url}/{session['id']}"
        self.objects[session["id"]]["_intent_metadata"] = fields.get("payment_intent_data", {}).get("metadata", {})
        return session

    def expire_session(self, session: Object) -> None:
        require(session["status"] == "open", "only open sessions can be expired")
        session.update(status="expired", url=None)
        self.tell("checkout.session.expired", session)

    def pay_session(
        self, session: Object, *, later: bool = False, amount: int | None = None, currency: str | None = None
    ) -> Object:
        """The customer pays; returns the payment intent. ``later``: by a method that takes days, still to be settled.

        ``amount`` and ``currency`` are for payments that are not what the session asked for.
        """
        require(session["mode"] == "payment", "this session is not for a payment")
        require(session["status"] == "open", "this session was paid or has expired")
        session["amount_total"] = session["amount_total"] if amount is None else amount
        session["currency"] = session["currency"] if currency is None else currency
        intent = self.new(
            "payment_intent",
            "pi",
            amount=session["amount_total"],
            amount_received=0,
            currency=session["currency"],
            latest_charge=None,
            metadata=dict(session["_intent_metadata"]),
            payment_method_types=["card"],
            status="processing",
        )
        session.update(status="complete", payment_intent=intent["id"], url=None)
        if later:
            self.tell("checkout.session.completed", session)
            return intent
        session["payment_status"] = "paid"
        self.charge(intent)
        self.tell("checkout.session.completed", session)
        return intent

    def settle_session(self, session: Object, *, succeeds: bool) -> None:
        """What became of a payment that was to take days."""
        require(session["status"] == "complete" and session["payment_status"] == "unpaid", "nothing is under way")
        intent = self.get(session["payment_intent"], "payment_intent")
        if not succeeds:
            intent["status"] = "requires_payment_method"
            self.tell("payment_intent.payment_failed", intent)
            self.tell("checkout.session.async_payment_failed", session)
            return
        session["payment_status"] = "paid"
        self.charge(intent)
        self.tell("checkout.session.async_payment_succeeded", session)

    def charge(self, intent: Object) -> None:
        """What was to be paid is paid."""
        charge = self.new(
            "charge",
            "ch",
            amount=intent["amount"],
            amount_captured=intent["amount"],
            amount_refunded=0,
            captured=True,
            currency=intent["currency"],
            disputed=False,
            metadata=dict(intent["metadata"]),
            paid=True,
            payment_intent=intent["id"],
            refunded=False,
            status="succeeded",
        )
        intent.update(status="succeeded", amount_received=intent["amount"], latest_charge=charge["id"])
        self.tell("charge.succeeded", charge)
        self.tell("payment_intent.succeeded", intent)

    # --- money that goes back

    def refund(self, charge: Object, amount: int | None, metadata: dict[str, str], reason: str | None) -> Object:
        """Give back ``amount``, or all that is left. Raises StripeRefusal above that, or when it is disputed."""
        left = charge["amount"] - charge["amount_refunded"]
        amount = left if amount is None else amount
        if amount > left or left == 0:
            raise StripeRefusal(
                f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})",
                code="charge_already_refunded" if left == 0 else None,
            )
        require(amount > 0, "the amount must be above zero")
        require(not charge["disputed"], "this charge is disputed", code="charge_disputed")
        refund = self.new(
            "refund",
            "re",
            amount=amount,
            charge=charge["id"],
            currency=charge["currency"],
            metadata=metadata,
            payment_intent=charge["payment_intent"],
            reason=reason,
            status="succeeded",
        )
        charge["amount_refunded"] += amount
        charge["refunded"] = charge["amount_refunded"] == charge["amount"]
        self.tell("refund.created", refund)
        self.tell("charge.refunded", charge)
        return refund

    def fail_refund(self, refund: Object) -> None:
        """The payer's bank did not take the money: it is the seller's again."""
        require(refund["status"] == "succeeded", "this refund failed before")
        charge = self.get(refund["charge"], "charge")
        charge["amount_refunded"] -= refund["amount"]
        charge["refunded"] = False
        refund["status"] = "failed"
        self.tell("refund.failed", refund)

    def dispute(self, charge: Object, amount: int | None, *, inquiry: bool = False) -> Object:
        """The customer's bank takes the money back, or, by an inquiry, asks before it does."""
        dispute = self.new(
            "dispute",
            "du",
            amount=charge["amount"] if amount is None else amount,
            charge=charge["id"],
            currency=charge["currency"],
            metadata={},
            payment_intent=charge["payment_intent"],
            reason="fraudulent",
            status="warning_needs_response" if inquiry else "needs_response",
        )
        charge["disputed"] = True
        self.tell("charge.dispute.created", dispute)
        if not inquiry:
            self.tell("charge.dispute.funds_withdrawn", dispute)
        return dispute

    def close_dispute(self, dispute: Object, status: str) -> None:
        """The bank decides. A dispute that is won gives the money back."""
        require(dispute["status"] not in CLOSED and status in CLOSED, "this dispute cannot be closed so")
        dispute["status"] = status
        self.tell("charge.dispute.closed", dispute)
        if status == "won":
            self.tell("charge.dispute.funds_reinstated", dispute)

    # --- what all of them are made of

    def new(self, kind: str, prefix: str, **fields: Any) -> Object:
        id_ = f"{prefix}_{secrets.token_hex(12)}"
        made = {"id": id_, "object": kind, "created": int(self.clock()), "livemode": False, **fields}
        self.objects[id_] = made
        return made

    def tell(self, type_: str, subject: Object) -> None:
        self.movements(type_, subject)
        event = {
            "id": f"evt_{secrets.token_hex(12)}",
            "object": "event",
            "api_version": API_VERSION,
            "created": int(time.time()),
            "data": {"object": shown(subject)},
            "livemode": False,
            "pending_webhooks": 1,
            "request": {"id": None, "idempotency_key": None},
            "type": type_,
        }
        self.events.append(event)
        self._told(event)


def shown(thing: Object) -> Object:
    """The object as callers see it: a copy, without what only we remember."""
    return {name: copy.deepcopy(value) for name, value in thing.items() if not name.startswith("_")}


def require(condition: bool, otherwise: str, code: str | None = None) -> None:
    if not condition:
        raise StripeRefusal(otherwise, code=code)
