"""/v1/topup/stripe: the page where customers pay, and what Stripe tells of it."""

import msgspec
from aiohttp import web

from accounts import Authenticator, require_account
from ledger import Ledger
from payments.errors import WebhookRefused
from payments.metrics import NOTIFICATIONS
from payments.refusals import as_api_errors, configured
from payments.routes import CheckoutBody, idempotency_key_of
from payments.stripe.api import PROVIDER
from payments.stripe.automatic_routes import AutomaticRoutes
from payments.stripe.card_routes import CardRoutes
from payments.stripe.events import MAX_BODY, EventHead, read_head
from payments.stripe.road import StripeRoad
from payments.stripe.signatures import require_signature
from wire import ApiError, Route, json_reply, microcents_of, read_body, read_json


class CheckoutAnswer(msgspec.Struct, kw_only=True):
    """Send the customer to ``checkout_url``. The balance has the money when the history says ``credited``."""

    checkout_url: str
    session_id: str
    topup_id: str


class WebhookAnswer(msgspec.Struct):
    received: bool


def stripe_routes(ledger: Ledger, authenticator: Authenticator, road: StripeRoad | None) -> list[Route]:
    """All operations of this road. Without it they are off."""
    return [
        *StripeRoutes(authenticator, road).routes(),
        *CardRoutes(ledger, authenticator, None if road is None else road.cards).routes(),
        *AutomaticRoutes(ledger, authenticator, None if road is None else road.automatic).routes(),
    ]


class StripeRoutes:
    """The handlers of checkouts and webhooks."""

    def __init__(self, authenticator: Authenticator, road: StripeRoad | None) -> None:
        self._authenticator = authenticator
        self._configured = road

    def routes(self) -> list[Route]:
        return [
            Route(
                method="POST",
                path="/v1/topup/stripe/checkout",
                handler=self.begin_checkout,
                summary="A page at Stripe where the customer pays; the balance grows once that is known",
                tag="payments",
                headers={"Idempotency-Key": "the same again is the same page, and never a second payment"},
                body=CheckoutBody,
                answer=CheckoutAnswer,
                status=201,
                errors=(
                    "forbidden",
                    "conflict",
                    "idempotency_mismatch",
                    "payments_not_configured",
                    "payment_provider_error",
                    "payment_provider_unavailable",
                    "ledger_unavailable",
                ),
            ),
            Route(
                method="POST",
                path="/v1/topup/stripe/webhook",
                handler=self.take_stripe_webhook,
                summary="For Stripe alone: what became of payments, signed",
                tag="payments",
                auth="public",
                headers={"Stripe-Signature": "by a secret of this endpoint"},
                answer=WebhookAnswer,
                errors=("invalid_request", "payments_not_configured", "ledger_unavailable"),
            ),
        ]

    async def begin_checkout(self, request: web.Request) -> web.Response:
        principal = await self._authenticator.authenticate(request)
        account_id = require_account(principal)
        road = self._road()
        idempotency_key = idempotency_key_of(request)
        body = await read_json(request, CheckoutBody)
        amount = microcents_of(body.amount_cents, param="amount_cents")
        with as_api_errors(account_id=account_id):
            checkout = await road.checkouts.begin(
                account_id, amount=amount, requested_by=principal.id, idempotency_key=idempotency_key
            )
        answer = CheckoutAnswer(checkout_url=checkout.url, session_id=checkout.session_id, topup_id=checkout.topup_id)
        return json_reply(answer, status=201)

    async def take_stripe_webhook(self, request: web.Request) -> web.Response:
        road = self._road()
        try:
            body, head = await self._verified(request, road)
        except WebhookRefused as refused:
            NOTIFICATIONS.labels(PROVIDER, refused.reason).inc()
            raise ApiError("invalid_request", str(refused)) from refused
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers]
        await road.inbox.take(PROVIDER, head.id, head.type, headers=headers, body=body)
        return json_reply(WebhookAnswer(True))

    async def _verified(self, request: web.Request, road: StripeRoad) -> tuple[bytes, EventHead]:
        try:
            body = await read_body(request, limit=MAX_BODY)
        except ApiError as error:
            reason = "too_large" if error.code == "payload_too_large" else "unreadable"
            raise WebhookRefused(reason, error.message) from error
        signature = request.headers.get("Stripe-Signature", "")
        require_signature(signature, body, road.webhook_secrets, now=road.inbox.clock())
        return body, read_head(body)

    def _road(self) -> StripeRoad:
        return configured(self._configured, PROVIDER)
