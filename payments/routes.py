"""/v1/topup: what became of the top-ups, and what the requests for them share."""

import re
from datetime import datetime
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from accounts import Authenticator, Principal, require_account, require_role
from ledger import Ledger, TopupState
from wire import ApiError, Cents, Route, cents_of, json_reply, read_query

_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}")


class CheckoutBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    amount_cents: Cents  # of the account's currency


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
    """The handler of /v1/topup/history."""

    def __init__(self, ledger: Ledger, authenticator: Authenticator) -> None:
        self._ledger = ledger
        self._authenticator = authenticator

    def routes(self) -> list[Route]:
        return [
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

    async def list_topups(self, request: web.Request) -> web.Response:
        principal = await self._authenticator.authenticate(request)
        query = read_query(request, HistoryQuery)
        account_id = _account_asked_for(principal, query.account_id)
        topups = await self._ledger.topups(account_id, before=query.cursor, limit=query.limit)
        reply = json_reply([_line(topup) for topup in topups])
        if len(topups) == query.limit:
            reply.headers["x-next-cursor"] = topups[-1].topup_id
        return reply


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
