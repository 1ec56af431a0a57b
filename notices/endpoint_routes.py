"""/v1/webhook_endpoints: where the own account's notices go."""

from datetime import datetime
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType
from msgspec.structs import asdict

from notices.contents import NoticeType
from notices.endpoints import Endpoint, Endpoints
from notices.permission import Permission
from notices.refusals import as_api_errors
from wire import Route, json_reply, read_json

Url = Annotated[str, Meta(max_length=2048, pattern=r"^[!-~]+$(?!\n)", description="an https URL")]
Types = Annotated[list[NoticeType], Meta(min_length=1, max_length=50)]


class NewEndpointBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    url: Url
    events: Types | None = None  # null: all, also those to come


class EndpointChanges(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is not named stays as it is."""

    url: Url | UnsetType = UNSET
    events: Types | UnsetType | None = UNSET
    disabled: bool | UnsetType = UNSET


class EndpointAnswer(msgspec.Struct, kw_only=True):
    id: str
    url: str
    events: list[str] | None
    disabled: bool
    disabled_reason: str | None
    failing_since: datetime | None  # null: the last delivery succeeded, or there was none
    former_secret_until: datetime | None  # so long deliveries are signed by the secret before, too
    created_at: datetime


class EndpointWithSecret(EndpointAnswer, kw_only=True):
    secret: str  # whsec_ and base64; shown this once


class EndpointRoutes:
    """The handlers of /v1/webhook_endpoints."""

    def __init__(self, endpoints: Endpoints, permission: Permission) -> None:
        self._endpoints = endpoints
        self._permission = permission

    def routes(self) -> list[Route]:
        return [
            Route(
                method="POST",
                path="/v1/webhook_endpoints",
                handler=self.create_webhook_endpoint,
                summary="Have notices sent to a URL; the secret that they are signed with is shown this once",
                tag="notices",
                body=NewEndpointBody,
                answer=EndpointWithSecret,
                status=201,
                errors=("forbidden", "conflict", "ledger_unavailable"),
            ),
            Route(
                method="GET",
                path="/v1/webhook_endpoints",
                handler=self.list_webhook_endpoints,
                summary="The account's webhook endpoints, oldest first",
                tag="notices",
                answer=list[EndpointAnswer],
                errors=("forbidden", "ledger_unavailable"),
            ),
            Route(
                method="GET",
                path="/v1/webhook_endpoints/{id}",
                handler=self.get_webhook_endpoint,
                summary="One webhook endpoint",
                tag="notices",
                answer=EndpointAnswer,
                errors=("forbidden", "not_found", "ledger_unavailable"),
            ),
            Route(
                method="PATCH",
                path="/v1/webhook_endpoints/{id}",
                handler=self.change_webhook_endpoint,
                summary="Change a webhook endpoint's URL or events, disable it, or enable it again",
                tag="notices",
                body=EndpointChanges,
                answer=EndpointAnswer,
                errors=("forbidden", "not_found", "ledger_unavailable"),
            ),
            Route(
                method="DELETE",
                path="/v1/webhook_endpoints/{id}",
                handler=self.delete_webhook_endpoint,
                summary="Delete a webhook endpoint, and what waits for it",
                tag="notices",
                status=204,
                errors=("forbidden", "not_found", "ledger_unavailable"),
            ),
            Route(
                method="POST",
                path="/v1/webhook_endpoints/{id}/rotate_secret",
                handler=self.rotate_webhook_secret,
                summary="A new secret, shown this once; the one before it signs as well for 24 hours",
                tag="notices",
                answer=EndpointWithSecret,
                errors=("forbidden", "not_found", "ledger_unavailable"),
            ),
        ]

    async def create_webhook_endpoint(self, request: web.Request) -> web.Response:
        account_id = await self._permission.to_change(request)
        body = await read_json(request, NewEndpointBody)
        with as_api_errors():
            endpoint, secret = await self._endpoints.create(account_id, url=body.url, types=body.events)
        return json_reply(_with_secret(endpoint, secret), status=201)

    async def list_webhook_endpoints(self, request: web.Request) -> web.Response:
        account_id = await self._permission.to_see(request)
        return json_reply([_answer(endpoint) for endpoint in await self._endpoints.of_account(account_id)])

    async def get_webhook_endpoint(self, request: web.Request) -> web.Response:
        account_id = await self._permission.to_see(request)
        with as_api_errors():
            return json_reply(_answer(await self._endpoints.get(account_id, request.match_info["id"])))

    async def change_webhook_endpoint(self, request: web.Request) -> web.Response:
        account_id = await self._permission.to_change(request)
        changes = await read_json(request, EndpointChanges)
        with as_api_errors():
            endpoint = await self._endpoints.change(
                account_id,
                request.match_info["id"],
                url=changes.url,
                types=changes.events,
                disabled=changes.disabled,
            )
        return json_reply(_answer(endpoint))

    async def delete_webhook_endpoint(self, request: web.Request) -> web.Response:
        account_id = await self._permission.to_change(request)
        with as_api_errors():
            await self._endpoints.delete(account_id, request.match_info["id"])
        return web.Response(status=204)

    async def rotate_webhook_secret(self, request: web.Request) -> web.Response:
        account_id = await self._permission.to_change(request)
        with as_api_errors():
            endpoint, secret = await self._endpoints.rotate_secret(account_id, request.match_info["id"])
        return json_reply(_with_secret(endpoint, secret))


def _answer(endpoint: Endpoint) -> EndpointAnswer:
    return EndpointAnswer(
        id=endpoint.endpoint_id,
        url=endpoint.url,
        events=endpoint.types,
        disabled=endpoint.disabled_because is not None,
        disabled_reason=endpoint.disabled_because,
        failing_since=endpoint.failing_since,
        former_secret_until=endpoint.former_secret_until,
        created_at=endpoint.created_at,
    )


def _with_secret(endpoint: Endpoint, secret: str) -> EndpointWithSecret:
    return EndpointWithSecret(**asdict(_answer(endpoint)), secret=secret)
