"""/v1/webhook_endpoints/{id}/…: what was sent to an endpoint, a test, and the same again."""

from collections.abc import Callable
from datetime import datetime
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from notices.endpoints import Endpoint, Endpoints
from notices.outbox import Delivery, Outbox
from notices.permission import Permission
from notices.refusals import as_api_errors
from wire import Route, json_reply, read_query


class DeliveriesQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    limit: Annotated[int, Meta(ge=1, le=500)] = 50


class DeliveryAnswer(msgspec.Struct, kw_only=True):
    """One attempt to deliver a notice. ``status``, of the notice by now: waiting, delivered or failed."""

    notice_id: str  # the header webhook-id
    type: str
    created_at: datetime
    status: str
    next_try_at: datetime | None
    attempted_at: datetime | None  # null, as all below: not tried yet
    status_code: int | None  # null: there was no answer
    error: str | None  # null: delivered
    duration_ms: int | None


class SentAnswer(msgspec.Struct, kw_only=True):
    notice_id: str


class DeliveryRoutes:
    """The handlers of what goes to an endpoint."""

    def __init__(
        self, endpoints: Endpoints, outbox: Outbox, permission: Permission, *, clock: Callable[[], datetime]
    ) -> None:
        self._endpoints = endpoints
        self._outbox = outbox
        self._permission = permission
        self._clock = clock

    def routes(self) -> list[Route]:
        return [
            Route(
                method="GET",
                path="/v1/webhook_endpoints/{id}/deliveries",
                handler=self.list_webhook_deliveries,
                summary="The last attempts to deliver to a webhook endpoint, newest first; not tried yet before them",
                tag="notices",
                query=DeliveriesQuery,
                answer=list[DeliveryAnswer],
                errors=("forbidden", "not_found", "ledger_unavailable"),
            ),
            Route(
                method="POST",
                path="/v1/webhook_endpoints/{id}/test",
                handler=self.test_webhook_endpoint,
                summary="Send a webhook.test to a webhook endpoint, once",
                tag="notices",
                answer=SentAnswer,
                status=202,
                errors=("forbidden", "not_found", "conflict", "ledger_unavailable"),
            ),
            Route(
                method="POST",
                path="/v1/webhook_endpoints/{id}/notices/{notice_id}/resend",
                handler=self.resend_notice,
                summary="Deliver a notice again, under the same webhook-id",
                tag="notices",
                answer=SentAnswer,
                status=202,
                errors=("forbidden", "not_found", "conflict", "ledger_unavailable"),
            ),
        ]

    async def list_webhook_deliveries(self, request: web.Request) -> web.Response:
        account_id = await self._permission.to_see(request)
        query = read_query(request, DeliveriesQuery)
        endpoint = await self._endpoint(account_id, request)
        deliveries = await self._outbox.deliveries(endpoint, limit=query.limit)
        return json_reply([_answer(delivery) for delivery in deliveries])

    async def test_webhook_endpoint(self, request: web.Request) -> web.Response:
        endpoint = await self._endpoint(await self._permission.to_change(request), request)
        with as_api_errors():
            notice_id = await self._outbox.add_test(endpoint, self._clock())
        return json_reply(SentAnswer(notice_id=notice_id), status=202)

    async def resend_notice(self, request: web.Request) -> web.Response:
        endpoint = await self._endpoint(await self._permission.to_change(request), request)
        notice_id = request.match_info["notice_id"]
        with as_api_errors():
            await self._outbox.send_again(endpoint, notice_id, self._clock())
        return json_reply(SentAnswer(notice_id=notice_id), status=202)

    async def _endpoint(self, account_id: str, request: web.Request) -> Endpoint:
        with as_api_errors():
            return await self._endpoints.get(account_id, request.match_info["id"])


def _answer(delivery: Delivery) -> DeliveryAnswer:
    return DeliveryAnswer(
        notice_id=delivery.notice_id,
        type=delivery.type,
        created_at=delivery.created_at,
        status=delivery.status,
        next_try_at=delivery.next_try_at,
        attempted_at=delivery.at,
        status_code=delivery.status_code,
        error=delivery.error,
        duration_ms=delivery.duration_ms,
    )
