"""/v1/topup: how customers pay, what Stripe tells of it, and what became of it."""

import re
from datetime import datetime
from typing import Annotated

import msgspec
import structlog
from aiohttp import web
from msgspec import Meta

from accounts import Authenticator, Principal, require_account, require_role
from ledger import Ledger, TopupState
from payments.errors import PaymentsNotConfigured, ProviderRefused, ProviderUnavailable, WebhookRefused
from payments.metrics import NOTIFICATIONS
from payments.refusals import as_api_errors
from payments.signatures import require_signature
from payments.stripe_api import PROVIDER
from payments.stripe_events import MAX_BODY, EventHead, read_head
from payments.stripe_road import StripeRoad
from wire import ApiError, Cents, Route, cents_of, json_reply, microcents_of, read_body, read_json, read_query

_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}")
_log = structlog.get_logger(__name__)


class CheckoutBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    amount_cents: Cents  # of the account's currency


class CheckoutAnswer(msgspec.Struct, kw_only=True):
    """Send the customer to ``checkout_url``. The balance has the money when the history says ``credited``."""

    checkout_url: str
    session_id: str
    topup_id: str


class WebhookAnswer(msgspec.Struct):
    received: bool


class HistoryQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``cursor`` continues a page. ``account_id`` is for finance and admin; else it can only be one's own."""

    limit: Annotated[int, Meta(ge=1, le=500)] = 50
    cursor: Annotated[str, Meta(max_length=100, pattern=r"^[^\x00]*$")] | None = None
    account_id: Annotated[str, Meta(max_length=100, pattern=r"^[^\x00]*$")] | None = None


class TopupLine(msgspec.Struct, kw_only=True):
    """One top-up. ``status``: requested, pending, credited, partly_reversed, reversed, failed or expired."""

    id: str
    amount_cents: Cents
    source: str  # the provider
    reference_id: str | None  # the provider's: of the payment, or before there is one, of the order
    status: str
    reversed_cents: Cents  # refunded or disputed by now
    created_at: datetime
    credited_at: datetime | None


class TopupRoutes:
    """The handlers of /v1/topup. Without a road the operations of Stripe are off."""

    def __init__(self, ledger: Ledger, authenticator: Authenticator, stripe: StripeRoad | None) -> None:
        self._ledger = ledger
        self._authenticator = authenticator
        self._stripe = stripe

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
            Route(
                method="GET",
                path="/v1/topup/history",
                handler=self.list_topups,
                summary="Top-ups, newest first",
                tag="payments",
                query=HistoryQuery,
                answer=list[TopupLine],
                errors=("forbidden", "ledger_unavailable"),
            ),
        ]

    async def begin_checkout(self, request: web.Request) -> web.Response:
        principal = await self._authenticator.authenticate(request)
        account_id = require_account(principal)
        road = self._road()
        idempotency_key = idempotency_key_of(request)
        body = await read_json(request, CheckoutBody)
        amount = microcents_of(body.amount_cents, param="amount_cents")
        try:
            with as_api_errors():
                checkout = await road.checkouts.begin(
                    account_id, amount=amount, requested_by=principal.id, idempotency_key=idempotency_key
                )
        except ApiError as error:
            if isinstance(error.__cause__, ProviderRefused | ProviderUnavailable):
                _log.error("checkout.failed", account_id=account_id, error=str(error.__cause__))
            raise
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

    async def list_topups(self, request: web.Request) -> web.Response:
        principal = await self._authenticator.authenticate(request)
        query = read_query(request, HistoryQuery)
        account_id = _account_asked_for(principal, query.account_id)
        topups = await self._ledger.topups(account_id, before=query.cursor, limit=query.limit)
        reply = json_reply([_line(topup) for topup in topups])
        if len(topups) == query.limit:
            reply.headers["x-next-cursor"] = topups[-1].topup_id
        return reply

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
        if self._stripe is None:
            with as_api_errors():
                raise PaymentsNotConfigured(PROVIDER)
        return self._stripe


def _account_asked_for(principal: Principal, account_id: str | None) -> str:
    if account_id is None:
        return require_account(principal)
    if account_id != principal.account_id:
        require_role(principal, "finance", "admin")
    return account_id


def idempotency_key_of(request: web.Request) -> str | None:
    """The header Idempotency-Key. Raises ApiError when it is malformed."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _IDEMPOTENCY_KEY.fullmatch(key):
        message = "an Idempotency-Key is 1 to 255 printable ASCII characters without spaces"
        raise ApiError("invalid_request", message, param="Idempotency-Key")
    return key


def _line(topup: TopupState) -> TopupLine:
    status: str = topup.status
    if topup.reversed:
        status = "reversed" if topup.reversed == topup.amount else "partly_reversed"
    return TopupLine(
        id=topup.topup_id,
        amount_cents=cents_of(topup.amount),
        source=topup.provider,
        reference_id=topup.payment_id or topup.reference,
        status=status,
        reversed_cents=cents_of(topup.reversed),
        created_at=topup.requested_at,
        credited_at=topup.credited_at,
    )
