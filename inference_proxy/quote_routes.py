"""/v1/quote: what would be charged, before it is."""

from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta

from accounts import Authenticator, Principal, require_role
from inference_proxy.operations import CHAT_COMPLETIONS, OPERATIONS, Operation
from inference_proxy.quotes import Quote, Quoter
from wire import ApiError, Route, json_reply, moment_of, read_body, read_json

#: With this header a metered request is answered by its quote: nothing is held, forwarded or charged.
DRY_RUN = "x-tollgate-dry-run"

_MEANT = frozenset({"true", "1", "yes", "on"})
_NOT_MEANT = frozenset({"", "false", "0", "no", "off"})

_BY_NAME = {operation.name: operation for operation in OPERATIONS}


class QuoteBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Either a ``usage``, which is priced exactly, or a ``request``, of which the most it can cost is told."""

    operation: str = CHAT_COMPLETIONS.name
    model: str | None = None  # of the usage; a request names its own
    usage: dict[str, Any] | None = None
    request: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    as_of: Annotated[str, Meta(extra_json_schema={"format": "date-time"})] | None = None  # null: now
    account_id: str | None = None  # for operators: whose price


class QuoteRoutes:
    """The handlers of quotes."""

    def __init__(self, quoter: Quoter, authenticator: Authenticator) -> None:
        self._quoter = quoter
        self._authenticator = authenticator

    def routes(self) -> list[Route]:
        return [
            Route(
                method="POST",
                path="/v1/quote",
                handler=self.create_quote,
                summary="What a usage costs, or a request at most: list price, your price, the hold, and the lines",
                tag="prices",
                body=QuoteBody,
                answer=Quote,
                errors=("forbidden", "not_found", "model_not_found", "model_not_priced", "ledger_unavailable"),
            )
        ]

    async def create_quote(self, request: web.Request) -> web.Response:
        principal = await self._authenticator.authenticate(request)
        body = await read_json(request, QuoteBody, limit=CHAT_COMPLETIONS.max_body)
        account_id = _account(principal, body.account_id)
        at = None if body.as_of is None else moment_of(body.as_of, param="as_of")
        if (body.usage is None) == (body.request is msgspec.UNSET):
            raise ApiError("invalid_request", "a quote is for a usage or for a request, one of them", param="usage")
        if body.request is not msgspec.UNSET:
            operation = _BY_NAME.get(body.operation)
            if operation is None:
                raise ApiError("invalid_request", f"there is no operation {body.operation[:100]!r}", param="operation")
            quote = await self._quoter.of_request(operation, bytes(body.request), account_id, at=at)
        elif body.model is None:
            raise ApiError("invalid_request", "a usage is of a model", param="model")
        else:
            quote = await self._quoter.of_usage(body.operation, body.model, body.usage or {}, account_id, at=at)
        return json_reply(quote)

    async def dry_run(self, operation: Operation, request: web.Request) -> web.Response:
        """The quote for a metered request that says it is not meant."""
        principal = await self._authenticator.authenticate(request)
        body = await read_body(request, limit=operation.max_body)
        return json_reply(await self._quoter.of_request(operation, body, principal.account_id))


def is_dry_run(request: web.Request) -> bool:
    """Whether the request asks for its quote only. Raises ApiError where that cannot be told: it could cost money."""
    said = request.headers.get(DRY_RUN, "").strip().lower()
    if said not in _MEANT and said not in _NOT_MEANT:
        raise ApiError("invalid_request", f"{DRY_RUN} is true or false, not {said[:40]!r}", param=DRY_RUN)
    return said in _MEANT


def _account(principal: Principal, asked: str | None) -> str | None:
    if asked is None or asked == principal.account_id:
        return principal.account_id
    require_role(principal, "finance", "admin")
    return asked
