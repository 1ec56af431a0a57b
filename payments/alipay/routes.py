"""/v1/topup/alipay: the page where customers pay in yuan, and what Alipay tells of it."""

from decimal import Decimal

import msgspec
from aiohttp import web

from accounts import Authenticator, require_account
from payments.alipay.amounts import CreditWished
from payments.alipay.api import PROVIDER
from payments.alipay.checkouts import AlipayCheckouts
from payments.alipay.notifications import MAX_BODY, NotificationHead, read_verified
from payments.alipay.road import AlipayRoad
from payments.errors import WebhookRefused
from payments.metrics import NOTIFICATIONS
from payments.refusals import as_api_errors, configured
from payments.routes import CheckoutBody, idempotency_key_of
from wire import ApiError, Cents, Route, cents_of, json_reply, microcents_of, read_body, read_json


class AlipayCheckoutAnswer(msgspec.Struct, kw_only=True):
    """Send the customer to ``checkout_url``. The balance has the money when the history says ``credited``."""

    checkout_url: str
    topup_id: str
    amount_cents: Cents  # that is credited
    yuan: Decimal  # that the customer pays for it, at the rate of the order


class AlipayRoutes:
    """The handlers of /v1/topup/alipay. Without a road they are off."""

    def __init__(
        self, authenticator: Authenticator, road: AlipayRoad | None, checkouts: AlipayCheckouts | None
    ) -> None:
        self._authenticator = authenticator
        self._road = road
        self._checkouts = checkouts

    def routes(self) -> list[Route]:
        return [
            Route(
                method="POST",
                path="/v1/topup/alipay/checkout",
                handler=self.begin_alipay_checkout,
                summary="A page at Alipay where the customer pays in yuan; the balance grows once that is known",
                tag="payments",
                headers={"Idempotency-Key": "the same again is the same order, and never a second payment"},
                body=CheckoutBody,
                answer=AlipayCheckoutAnswer,
                status=201,
                errors=(
                    "forbidden",
                    "conflict",
                    "idempotency_mismatch",
                    "payments_not_configured",
                    "ledger_unavailable",
                ),
            ),
            Route(
                method="POST",
                path="/v1/topup/alipay/notify",
                handler=self.take_alipay_notification,
                summary="For Alipay alone: what became of payments, signed; answered by the word success",
                tag="payments",
                auth="public",
                content_type="text/plain",
                errors=("invalid_request", "payments_not_configured", "ledger_unavailable"),
            ),
        ]

    async def begin_alipay_checkout(self, request: web.Request) -> web.Response:
        principal = await self._authenticator.authenticate(request)
        account_id = require_account(principal)
        checkouts = configured(self._checkouts, PROVIDER)
        idempotency_key = idempotency_key_of(request)
        body = await read_json(request, CheckoutBody)
        wish = CreditWished(microcents_of(body.amount_cents, param="amount_cents"))
        with as_api_errors():
            checkout = await checkouts.begin(
                account_id, wish, requested_by=principal.id, idempotency_key=idempotency_key
            )
        topup = checkout.topup
        answer = AlipayCheckoutAnswer(
            checkout_url=checkout.url,
            topup_id=topup.topup_id,
            amount_cents=cents_of(topup.amount),
            yuan=topup.asked_amount,
        )
        return json_reply(answer, status=201)

    async def take_alipay_notification(self, request: web.Request) -> web.Response:
        road = configured(self._road, PROVIDER)
        try:
            body, head = await _verified(request, road)
        except WebhookRefused as refused:
            NOTIFICATIONS.labels(PROVIDER, refused.reason).inc()
            raise ApiError("invalid_request", str(refused)) from refused
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.raw_headers]
        await road.inbox.take(PROVIDER, head.notify_id, head.trade_status, headers=headers, body=body)
        return web.Response(text="success")  # whatever else is answered, Alipay comes again


async def _verified(request: web.Request, road: AlipayRoad) -> tuple[bytes, NotificationHead]:
    try:
        body = await read_body(request, limit=MAX_BODY)
    except ApiError as error:
        reason = "too_large" if error.code == "payload_too_large" else "unreadable"
        raise WebhookRefused(reason, error.message) from error
    return body, read_verified(body, road.api)
