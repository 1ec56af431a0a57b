"""Usage over HTTP: the lines, and their sums. Follows the log within a second or so; money is decided elsewhere."""

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any

import msgspec
from aiohttp import web

from accounts import Authenticator, Principal
from ledger import Ledger, Microcents, cents_text, load_queries
from ledger.limits import month_end, month_of
from ledger.reading import shard_of
from wire import ApiError, Cents, Route, cents_of, json_reply, read_query

_queries = load_queries("projections")

BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)
#: Moments outside are not in Postgres's reach once they are moved to UTC, and nothing was used then.
_FIRST_YEAR, _LAST_YEAR = 1970, 9000

#: NUL has no place in Postgres.
Filter = Annotated[str, msgspec.Meta(max_length=200, pattern=r"^[^\x00]*$")]


class LogsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``from`` and ``to`` are RFC 3339 moments or dates (UTC), ``to`` exclusive. ``cursor`` continues a page."""

    limit: Annotated[int, msgspec.Meta(ge=1, le=500)] = 50
    offset: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 0
    cursor: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)] | None = None
    key: Filter | None = None
    model: Filter | None = None
    from_: str | None = msgspec.field(name="from", default=None)
    to: str | None = None


class SumsQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``from`` and ``to`` are RFC 3339 moments or dates (UTC), ``to`` exclusive."""

    from_: str | None = msgspec.field(name="from", default=None)
    to: str | None = None


class UsageLine(msgspec.Struct, frozen=True, kw_only=True):
    """One request: what it used and what it cost. A request that ended without a charge costs 0."""

    id: str  # the hold's id
    request_id: str | None
    key: str | None
    operation: str
    model: str
    status: str
    outcome: str
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    cost_cents: Cents
    latency_ms: int
    created_at: datetime
    ended_at: datetime


class UsageSums(msgspec.Struct, frozen=True, kw_only=True):
    total_requests: int
    total_input_tokens: int
    total_cached_input_tokens: int
    total_output_tokens: int
    total_cost_cents: Cents


class ModelUsage(UsageSums, frozen=True, kw_only=True):
    model: str


class KeyUsage(UsageSums, frozen=True, kw_only=True):
    key: str | None


class DayUsage(UsageSums, frozen=True, kw_only=True):
    day: date


class UsageHandlers:
    """The handlers of the usage operations; what they need is passed in."""

    def __init__(self, ledger: Ledger, authenticator: Authenticator, clock: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._authenticator = authenticator
        self._clock = clock

    async def list_usage_logs(self, request: web.Request) -> web.Response:
        principal = await self._customer(request)
        query = read_query(request, LogsQuery)
        rows = await self._ledger.pool.fetch(
            _queries["usage_logs_page"],
            shard_of(principal.account_id or "", self._ledger.shards),
            principal.account_id,
            query.key,
            query.model,
            _moment(query.from_, "from"),
            _moment(query.to, "to"),
            query.cursor,
            query.limit,
            query.offset,
        )
        reply = json_reply([_line(row) for row in rows])
        if len(rows) == query.limit:
            reply.headers["x-next-cursor"] = str(rows[-1]["position"])
        return reply

    async def get_usage_summary(self, request: web.Request) -> web.Response:
        principal = await self._customer(request)
        await self._refuse_spent_key(principal)
        sums = await self._sums(request, principal)
        return json_reply(UsageSums(**_totals(sums[None, None, None])))

    async def get_usage_by_model(self, request: web.Request) -> web.Response:
        sums = await self._sums(request, await self._customer(request))
        return json_reply([ModelUsage(model=m, **_totals(row)) for (m, _, _), row in sums.items() if m is not None])

    async def get_usage_by_key(self, request: web.Request) -> web.Response:
        sums = await self._sums(request, await self._customer(request))
        return json_reply([KeyUsage(key=k or None, **_totals(row)) for (_, k, _), row in sums.items() if k is not None])

    async def get_usage_by_day(self, request: web.Request) -> web.Response:
        sums = await self._sums(request, await self._customer(request))
        return json_reply([DayUsage(day=d, **_totals(row)) for (_, _, d), row in sums.items() if d is not None])

    async def _customer(self, request: web.Request) -> Principal:
        principal = await self._authenticator.authenticate(request)
        if principal.account_id is None:
            raise ApiError("forbidden", "usage belongs to an account; a service token has none")
        return principal

    async def _refuse_spent_key(self, principal: Principal) -> None:
        """A key whose budget of this month is spent reads no summary; a session of the same user does."""
        now = self._clock()
        for key in await self._ledger.keys(principal.account_id or ""):
            if key.key_id != principal.key_id or key.monthly_budget is None or key.month != month_of(now):
                continue
            if key.month_spent >= key.monthly_budget:
                raise ApiError(
                    "payment_required",
                    f"the key's budget of this month is spent: {cents_text(key.month_spent)} of "
                    f"{cents_text(key.monthly_budget)} cents",
                    fields={
                        "reason": "budget_exceeded",
                        "scope": "key",
                        "limit_cents": cents_of(key.monthly_budget),
                        "spent_cents": cents_of(key.month_spent),
                        "resets_at": month_end(now),
                    },
                    headers={"x-should-retry": "false"},
                )

    async def _sums(
        self, request: web.Request, principal: Principal
    ) -> dict[tuple[str | None, str | None, date | None], Any]:
        query = read_query(request, SumsQuery)
        start = _moment(query.from_, "from") or BEGINNING
        end = _moment(query.to, "to") or self._clock() + timedelta(days=1)
        first_day = start.date() if start.time() == time() else start.date() + timedelta(days=1)
        rows = await self._ledger.pool.fetch(
            _queries["usage_sums"],
            shard_of(principal.account_id or "", self._ledger.shards),
            principal.account_id,
            start,
            end,
            first_day,
            max(end.date(), first_day),
        )
        return {(row["model"], row["key_id"], row["day"]): row for row in rows}


def _moment(text: str | None, param: str) -> datetime | None:
    if text is None:
        return None
    try:
        # A "+" that was not escaped arrives as a space.
        moment = datetime.fromisoformat(text.replace(" ", "+"))
    except ValueError as error:
        raise ApiError("invalid_request", f"{text!r} is neither an RFC 3339 time nor a date", param=param) from error
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        raise ApiError("invalid_request", f"not a moment from {_FIRST_YEAR} to {_LAST_YEAR}", param=param)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _line(row: Any) -> UsageLine:
    return UsageLine(
        id=row["hold_id"],
        request_id=row["request_id"],
        key=row["key_id"],
        operation=row["operation"],
        model=row["model"],
        status=row["status"],
        outcome=row["outcome"],
        input_tokens=row["input_tokens"],
        cached_input_tokens=row["cached_input_tokens"],
        output_tokens=row["output_tokens"],
        cost_cents=cents_of(Microcents(row["cost_microcents"])),
        latency_ms=(row["ended_at"] - row["started_at"]) // timedelta(milliseconds=1),
        created_at=row["started_at"],
        ended_at=row["ended_at"],
    )


def _totals(row: Any) -> dict[str, Any]:
    return {
        "total_requests": row["requests"] or 0,
        "total_input_tokens": row["input_tokens"] or 0,
        "total_cached_input_tokens": row["cached_input_tokens"] or 0,
        "total_output_tokens": row["output_tokens"] or 0,
        "total_cost_cents": cents_of(Microcents(row["cost_microcents"] or 0)),
    }


def usage_routes(ledger: Ledger, authenticator: Authenticator, clock: Callable[[], datetime]) -> list[Route]:
    """The usage operations of the native surface."""
    handlers = UsageHandlers(ledger, authenticator, clock)

    def get(path: str, handler: Any, summary: str, query: Any, answer: Any, *errors: str) -> Route:
        return Route(
            method="GET",
            path=path,
            handler=handler,
            summary=summary,
            tag="usage",
            query=query,
            answer=answer,
            errors=("forbidden", *errors),
        )

    return [
        get("/v1/usage/logs", handlers.list_usage_logs, "Requests, newest first", LogsQuery, list[UsageLine]),
        get(
            "/v1/usage/summary",
            handlers.get_usage_summary,
            "Sums of all requests",
            SumsQuery,
            UsageSums,
            "payment_required",
        ),
        get("/v1/usage/by-model", handlers.get_usage_by_model, "Sums by model", SumsQuery, list[ModelUsage]),
        get("/v1/usage/by-key", handlers.get_usage_by_key, "Sums by key", SumsQuery, list[KeyUsage]),
        get("/v1/usage/by-day", handlers.get_usage_by_day, "Sums by day, UTC", SumsQuery, list[DayUsage]),
    ]
