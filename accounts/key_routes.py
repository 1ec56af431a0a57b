"""/v1/keys: the keys of one's own account."""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from accounts.authentication import Authenticator
from accounts.fields import Name
from accounts.keys import Keys, NamedKey
from accounts.principals import require_account, require_whole_account
from accounts.refusals import as_api_errors
from ledger import Ledger, Microcents
from ledger.limits import month_of
from wire import ApiError, Cents, Route, cents_of, json_reply, microcents_of, read_json

#: More is no limit for one key, and the ledger's rate limit counts in whole microseconds.
RATE_LIMIT_MAX_RPM = 1_000_000


class NewKeyBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    name: Name
    rate_limit_rpm: Annotated[int, Meta(ge=1, le=RATE_LIMIT_MAX_RPM)] | None = None  # null: unlimited
    monthly_budget_cents: Cents | None = None  # null: unlimited


class NewKeyAnswer(msgspec.Struct, kw_only=True):
    id: str
    key: str  # the secret, shown this once
    key_prefix: str
    name: str
    rate_limit_rpm: int | None
    monthly_budget_cents: Cents | None
    is_active: bool
    created_at: datetime


class KeyAnswer(msgspec.Struct, kw_only=True):
    id: str
    key_prefix: str | None
    name: str | None
    rate_limit_rpm: int | None
    monthly_budget_cents: Cents | None
    is_active: bool
    created_at: datetime
    spent_this_month_cents: Cents
    last_used_at: datetime | None


class KeyRoutes:
    """The handlers of /v1/keys."""

    def __init__(
        self, ledger: Ledger, keys: Keys, authenticator: Authenticator, *, clock: Callable[[], datetime]
    ) -> None:
        self._ledger = ledger
        self._keys = keys
        self._authenticator = authenticator
        self._clock = clock

    def routes(self) -> list[Route]:
        return [
            Route(
                method="POST",
                path="/v1/keys",
                handler=self.create_key,
                summary="Create a key; its secret is shown this once",
                tag="keys",
                body=NewKeyBody,
                answer=NewKeyAnswer,
                status=201,
                errors=("forbidden", "ledger_unavailable"),
            ),
            Route(
                method="GET",
                path="/v1/keys",
                handler=self.list_keys,
                summary="The account's keys, deleted ones too, oldest first",
                tag="keys",
                answer=list[KeyAnswer],
                errors=("forbidden", "ledger_unavailable"),
            ),
            Route(
                method="DELETE",
                path="/v1/keys/{id}",
                handler=self.delete_key,
                summary="Delete a key for ever; requests in flight are still settled",
                tag="keys",
                status=204,
                errors=("forbidden", "not_found", "ledger_unavailable"),
            ),
        ]

    async def create_key(self, request: web.Request) -> web.Response:
        principal = await self._authenticator.authenticate(request)
        account_id = await require_whole_account(principal, self._ledger)
        body = await read_json(request, NewKeyBody)
        key = await self._keys.create(
            account_id,
            user_id=principal.user_id,
            name=body.name,
            rate_limit_rpm=body.rate_limit_rpm,
            monthly_budget=_budget(body.monthly_budget_cents),
        )
        answer = NewKeyAnswer(
            id=key.key_id,
            key=key.secret,
            key_prefix=key.prefix,
            name=key.name,
            rate_limit_rpm=key.rate_limit_rpm,
            monthly_budget_cents=None if key.monthly_budget is None else cents_of(key.monthly_budget),
            is_active=True,
            created_at=key.created_at,
        )
        return json_reply(answer, status=201)

    async def list_keys(self, request: web.Request) -> web.Response:
        account_id = require_account(await self._authenticator.authenticate(request))
        now = self._clock()
        return json_reply([key_answer(key, now) for key in await self._keys.of_account(account_id)])

    async def delete_key(self, request: web.Request) -> web.Response:
        account_id = await require_whole_account(await self._authenticator.authenticate(request), self._ledger)
        with as_api_errors():
            await self._keys.delete(account_id, request.match_info["id"])
        return web.Response(status=204)


def key_answer(key: NamedKey, now: datetime) -> KeyAnswer:
    """A key as it is listed. What it spent counts from the first of the month (UTC), as its budget does."""
    state = key.state
    spent = state.month_spent if state.month == month_of(now) else Microcents(0)
    return KeyAnswer(
        id=state.key_id,
        key_prefix=key.prefix,
        name=key.name,
        rate_limit_rpm=state.rate_limit_rpm,
        monthly_budget_cents=None if state.monthly_budget is None else cents_of(state.monthly_budget),
        is_active=state.is_active,
        created_at=state.created_at,
        spent_this_month_cents=cents_of(spent),
        last_used_at=state.last_used_at,
    )


def _budget(cents: Decimal | None) -> Microcents | None:
    if cents is None:
        return None
    budget = microcents_of(cents, param="monthly_budget_cents")
    if budget < 0:
        raise ApiError("invalid_request", "a budget is not below zero", param="monthly_budget_cents")
    return budget
