"""Customers, the cards that they save, and payments that are made with a saved card while nobody is there.

A card does what its number says (Stripe's published test cards), until a test says otherwise.
"""

import time
from typing import Any, Final

from simulated_stripe.objects import SESSION_LIVES_S, Books, Object, StripeRefusal, require

#: What becomes of a payment with a card: the decline code by its number; without one it succeeds.
DECLINES: Final = {
    "4242424242424242": None,
    "4000000000000341": "generic_decline",
    "4000000000009995": "insufficient_funds",
    "4000002760003184": "authentication_required",
}


class Wallets:
    """What customers have saved, in the books of one account at Stripe."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def create_customer(self, fields: dict[str, Any]) -> Object:
        customer = self._books.new("customer", "cus", metadata=fields.get("metadata", {}))
        self._books.tell("customer.created", customer)
        return customer

    # --- cards

    def create_session(self, fields: dict[str, Any], url: str) -> Object:
        """A Checkout Session of mode setup. ``url`` is where sessions are completed."""
        customer = self._books.get(fields["customer"], "customer")
        setup = self._books.new(
            "setup_intent",
            "seti",
            customer=customer["id"],
            metadata=fields.get("metadata", {}),
            payment_method=None,
            status="requires_payment_method",
        )
        session = self._books.new(
            "checkout.session",
            "cs_test",
            amount_total=None,
            cancel_url=fields.get("cancel_url"),
            currency=None,
            customer=customer["id"],
            expires_at=int(time.time()) + SESSION_LIVES_S,
            metadata=fields.get("metadata", {}),
            mode="setup",
            payment_intent=None,
            payment_method_types=["card"],
            payment_status="no_payment_required",
            setup_intent=setup["id"],
            status="open",
            success_url=fields.get("success_url"),
        )
        session["url"] = f"{url}/{session['id']}"
        return session

    def complete_session(self, session: Object, *, number: str) -> Object:
        """The customer enters a card; returns the payment method."""
        require(session["mode"] == "setup" and session["status"] == "open", "this session takes no card")
        if number not in DECLINES:
            raise StripeRefusal("Your card was declined.", status=402, kind="card_error", code="card_declined")
        method = self._books.new(
            "payment_method",
            "pm",
            card={"brand": "visa", "last4": number[-4:], "exp_month": 12, "exp_year": 2034},
            customer=session["customer"],
            type="card",
            _outcome=DECLINES[number],
        )
        setup = self._books.get(session["setup_intent"], "setup_intent")
        setup.update(payment_method=method["id"], status="succeeded")
        session.update(status="complete", url=None)
        self._books.tell("payment_method.attached", method)
        self._books.tell("setup_intent.succeeded", setup)
        self._books.tell("checkout.session.completed", session)
        return method

    def detach(self, method: Object) -> None:
        require(method["customer"] is not None, "The payment method you provided is not attached to a customer")
        method["customer"] = None
        self._books.tell("payment_method.detached", method)

    def change_outcome(self, method: Object, outcome: str | None) -> None:
        """What becomes of payments from now on: a decline code, ``processing``, ``requires_action``, or success."""
        method["_outcome"] = outcome

    # --- payments

    def create_payment(self, fields: dict[str, Any]) -> Object:
        """A payment intent with a saved card, confirmed at once if that is asked for."""
        method = self._books.get(fields["payment_method"], "payment_method")
        self._require_attached(method, fields.get("customer"))
        amount = int(fields["amount"])
        require(amount > 0, "the amount must be above zero", code="amount_too_small")
        intent = self._books.new(
            "payment_intent",
            "pi",
            amount=amount,
            amount_received=0,
            currency=fields["currency"].lower(),
            customer=fields["customer"],
            last_payment_error=None,
            latest_charge=None,
            metadata=fields.get("metadata", {}),
            payment_method=method["id"],
            payment_method_types=["card"],
            status="requires_confirmation",
        )
        self._books.tell("payment_intent.created", intent)
        if fields.get("confirm") == "true":
            self.confirm_payment(intent, fields)
        return intent

    def confirm_payment(self, intent: Object, fields: dict[str, Any]) -> None:
        """Take the money. Raises StripeRefusal 402 when the card is declined, as it is when nobody is there to act."""
        self._require_status(intent, "requires_confirmation", "requires_payment_method")
        method = self._books.get(fields.get("payment_method") or intent["payment_method"] or "", "payment_method")
        self._require_attached(method, intent["customer"])
        intent["payment_method"] = method["id"]
        match method["_outcome"]:
            case None:
                self._books.charge(intent)
            case "processing" | "requires_action" as status:
                intent["status"] = status
                self._books.tell(f"payment_intent.{status}", intent)
            case "authentication_required" if fields.get("off_session") != "true":  # the payer is there, and is asked
                intent["status"] = "requires_action"
                self._books.tell("payment_intent.requires_action", intent)
            case decline_code:
                raise self._declined(intent, decline_code)

    def settle_payment(self, intent: Object, *, succeeds: bool) -> None:
        """What became of a payment that was to take days."""
        self._require_status(intent, "processing")
        if succeeds:
            self._books.charge(intent)
        else:
            self._declined(intent, "generic_decline")

    def cancel_payment(self, intent: Object) -> None:
        self._require_status(intent, "requires_payment_method", "requires_confirmation", "requires_action")
        intent["status"] = "canceled"
        self._books.tell("payment_intent.canceled", intent)

    def _declined(self, intent: Object, decline_code: str) -> StripeRefusal:
        code = decline_code if decline_code == "authentication_required" else "card_declined"
        refusal = StripeRefusal(
            "Your card was declined.",
            status=402,
            kind="card_error",
            code=code,
            decline_code=decline_code,
            payment=intent,
        )
        intent.update(status="requires_payment_method", payment_method=None, last_payment_error=refusal.error)
        self._books.tell("payment_intent.payment_failed", intent)
        return refusal

    def _require_attached(self, method: Object, customer: str | None) -> None:
        if customer is None or method["customer"] != customer:
            message = "The customer does not have a payment method with this ID, or it was detached before"
            raise StripeRefusal(message, code="resource_missing")

    def _require_status(self, intent: Object, *statuses: str) -> None:
        if intent["status"] not in statuses:
            message = f"This PaymentIntent has a status of {intent['status']}; only {', '.join(statuses)} will do"
            raise StripeRefusal(message, code="payment_intent_unexpected_state")
