"""/v1/admin: what operators do to an account, and see of it."""

import re
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import UNSET, Meta, UnsetType

from accounts.authentication import Authenticator
from accounts.fields import Claim, Name, Reason
from accounts.key_routes import KeyAnswer, key_answer
from accounts.keys import Keys
from accounts.operators import Operators, account_of
from accounts.principals import Principal, require_role
from accounts.refusals import as_api_errors
from accounts.tables import answered
from accounts.user_routes import CreditGrant, credit_grants
from ledger import LAST_PRIORITY, PRIORITY, AccountState, Committed, HoldState, Ledger, Microcents
from ledger.events import CreditGranted
from wire import ApiError, Cents, Route, cents_of, json_reply, microcents_of, moment_of, read_json, read_query

_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}")


#: A text, because a number would be read as a moment too.
MomentText = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]


class GrantBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    account_id: Claim
    amount_cents: Cents  # above zero
    reason: Reason
    expires_at: MomentText | None = None  # null: never
    priority: Annotated[int, Meta(ge=0, le=LAST_PRIORITY)] = PRIORITY  # the lower, the earlier it is spent


class AdjustmentBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    account_id: Claim
    amount_cents: Cents  # above zero adds to the balance, below zero takes from it
    reason: Reason


class PlanBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    account_id: Claim
    plan: Name | None  # null: the list price


class PlanAnswer(msgspec.Struct, kw_only=True):
    """The event. A repeated request gets the same answer, whatever happened to the account since."""

    account_id: str
    position: int
    seq: int
    at: datetime
    plan: str | None


class BookedAnswer(msgspec.Struct, kw_only=True):
    """The event. A repeated request gets the same answer, whatever happened to the account since."""

    account_id: str
    position: int
    seq: int
    at: datetime
    amount_cents: Cents
    currency: str
    reason: str
    balance_cents: Cents  # posted, right after this event


class GrantAnswer(BookedAnswer, kw_only=True):
    """The event, with the grant's terms."""

    grant_id: str | None  # null: granted before grants had terms
    expires_at: datetime | None  # null: never
    priority: int


class AccountQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    as_of: MomentText | None = None


class HoldAnswer(msgspec.Struct, kw_only=True):
    id: str
    key_id: str | None
    held_cents: Cents
    drawn_cents: Cents
    operation: str
    model: str
    request_id: str | None
    placed_at: datetime
    expires_at: datetime


class AccountAnswer(msgspec.Struct, kw_only=True):
    """Now: credited = spent + posted, posted = held + available, and debt is what available is below zero.

    What has expired of credit grants is not available; for some seconds it is still in posted and credited.

    As of a moment (``as_of``): the balance that the books had then, and only that.
    """

    account_id: str
    currency: str
    plan: str | UnsetType | None = UNSET  # null: the list price
    as_of: datetime | None  # null: now
    posted_cents: Cents
    held_cents: Cents
    available_cents: Cents
    credited_cents: Decimal | UnsetType = UNSET
    spent_cents: Decimal | UnsetType = UNSET
    debt_cents: Decimal | UnsetType = UNSET
    refundable_cents: Decimal | UnsetType = UNSET  # paid money that is neither held nor spent
    credit_grants: list[CreditGrant] | UnsetType = UNSET
    open_holds: list[HoldAnswer] | UnsetType = UNSET
    keys: list[KeyAnswer] | UnsetType = UNSET


class OperatorRoutes:
    """The handlers of /v1/admin."""

    def __init__(
        self,
        ledger: Ledger,
        operators: Operators,
        keys: Keys,
        authenticator: Authenticator,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self._ledger = ledger
        self._operators = operators
        self._keys = keys
        self._authenticator = authenticator
        self._clock = clock

    def routes(self) -> list[Route]:
        booking = ("forbidden", "not_found", "idempotency_mismatch", "ledger_unavailable")
        return [
            Route(
                method="POST",
                path="/v1/admin/grants",
                handler=self.grant_credit,
                summary="Give an account credit, spent before paid money, once per Idempotency-Key",
                tag="operators",
                auth="operator",
                body=GrantBody,
                answer=GrantAnswer,
                status=201,
                errors=(*booking, "conflict"),
            ),
            Route(
                method="POST",
                path="/v1/admin/adjustments",
                handler=self.adjust_balance,
                summary="Correct a balance by hand, once per Idempotency-Key",
                tag="operators",
                auth="operator",
                body=AdjustmentBody,
                answer=BookedAnswer,
                status=201,
                errors=(*booking, "payment_required"),
            ),
            Route(
                method="POST",
                path="/v1/admin/plans",
                handler=self.change_plan,
                summary="Put an account on a plan, once per Idempotency-Key; its next request is priced for it",
                tag="operators",
                auth="operator",
                body=PlanBody,
                answer=PlanAnswer,
                status=201,
                errors=booking,
            ),
            Route(
                method="GET",
                path="/v1/admin/accounts/{id}",
                handler=self.get_account,
                summary="An account's money, open holds and keys; its balance as of any moment",
                tag="operators",
                auth="operator",
                query=AccountQuery,
                answer=AccountAnswer,
                errors=("forbidden", "not_found", "ledger_unavailable"),
            ),
        ]

    async def grant_credit(self, request: web.Request) -> web.Response:
        principal = await self._operator(request)
        idempotency_key = _idempotency_key(request)
        body = await read_json(request, GrantBody)
        amount = microcents_of(body.amount_cents, param="amount_cents")
        if amount <= 0:
            raise ApiError("invalid_request", "a grant is above zero", param="amount_cents")
        expires_at = None if body.expires_at is None else moment_of(body.expires_at, param="expires_at")
        with as_api_errors():
            committed = await self._operators.grant(
                body.account_id,
                amount=amount,
                reason=body.reason,
                granted_by=principal.id,
                idempotency_key=idempotency_key,
                expires_at=expires_at,
                priority=body.priority,
            )
        granted = committed.stored.event
        assert isinstance(granted, CreditGranted)  # what the command becomes
        answer = GrantAnswer(
            **_booked(committed, amount, body.reason),
            grant_id=granted.grant_id,
            expires_at=granted.expires_at,
            priority=granted.priority,
        )
        return json_reply(answer, status=201)

    async def adjust_balance(self, request: web.Request) -> web.Response:
        principal = await self._operator(request)
        idempotency_key = _idempotency_key(request)
        body = await read_json(request, AdjustmentBody)
        amount = microcents_of(body.amount_cents, param="amount_cents")
        if amount == 0:
            raise ApiError("invalid_request", "an adjustment is not zero", param="amount_cents")
        with as_api_errors():
            committed = await self._operators.adjust(
                body.account_id,
                amount=amount,
                reason=body.reason,
                adjusted_by=principal.id,
                idempotency_key=idempotency_key,
            )
        return json_reply(BookedAnswer(**_booked(committed, amount, body.reason)), status=201)

    async def change_plan(self, request: web.Request) -> web.Response:
        principal = await self._operator(request)
        idempotency_key = _idempotency_key(request)
        body = await read_json(request, PlanBody)
        with as_api_errors():
            committed = await self._operators.change_plan(
                body.account_id, plan=body.plan, changed_by=principal.id, idempotency_key=idempotency_key
            )
        stored = committed.stored
        answer = PlanAnswer(
            account_id=stored.stream_id, position=stored.position, seq=stored.seq, at=stored.at, plan=body.plan
        )
        return json_reply(answer, status=201)

    async def get_account(self, request: web.Request) -> web.Response:
        require_role(await self._authenticator.authenticate(request), "finance", "admin")
        query = read_query(request, AccountQuery)
        with as_api_errors():
            account = await account_of(self._ledger, request.match_info["id"])
        if query.as_of is None:
            return json_reply(await self._now(account))
        return json_reply(await self._then(account, moment_of(query.as_of, param="as_of")))

    async def _operator(self, request: web.Request) -> Principal:
        principal = await self._authenticator.authenticate(request)
        require_role(principal, "admin")
        return principal

    async def _now(self, account: AccountState) -> AccountAnswer:
        now = self._clock()
        open_holds = await answered(self._ledger.open_holds(account.account_id))
        return AccountAnswer(
            account_id=account.account_id,
            currency=account.currency,
            plan=account.plan,
            as_of=None,
            posted_cents=cents_of(account.posted),
            held_cents=cents_of(account.held),
            available_cents=cents_of(account.available),
            credited_cents=cents_of(account.credited),
            spent_cents=cents_of(account.spent),
            debt_cents=cents_of(account.debt),
            refundable_cents=cents_of(account.refundable),
            credit_grants=credit_grants(account),
            open_holds=[_hold(hold) for hold in open_holds],
            keys=[key_answer(key, now) for key in await self._keys.of_account(account.account_id)],
        )

    async def _then(self, account: AccountState, at: datetime) -> AccountAnswer:
        balance = await answered(self._ledger.balance_as_of(account.account_id, at))
        return AccountAnswer(
            account_id=account.account_id,
            currency=account.currency,
            as_of=at,
            posted_cents=cents_of(balance.posted),
            held_cents=cents_of(balance.held),
            available_cents=cents_of(balance.available),
        )


def _idempotency_key(request: web.Request) -> str:
    """The client's promise that the request is the same one as any before it with this key."""
    key = request.headers.get("Idempotency-Key", "")
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        message = "this needs the header Idempotency-Key: 1 to 255 printable ASCII characters without spaces"
        raise ApiError("invalid_request", message, param="Idempotency-Key")
    return key


def _booked(committed: Committed, amount: Microcents, reason: str) -> dict[str, Any]:
    """The fields of a booking: of the event and what never changes, so that a replay reads the same."""
    stored = committed.stored
    assert stored.balance_microcents is not None  # both events are money events
    return {
        "account_id": stored.stream_id,
        "position": stored.position,
        "seq": stored.seq,
        "at": stored.at,
        "amount_cents": cents_of(amount),
        "currency": committed.account.currency,
        "reason": reason,
        "balance_cents": cents_of(stored.balance_microcents),
    }


def _hold(hold: HoldState) -> HoldAnswer:
    return HoldAnswer(
        id=hold.hold_id,
        key_id=hold.key_id,
        held_cents=cents_of(hold.held),
        drawn_cents=cents_of(hold.drawn),
        operation=hold.operation,
        model=hold.model,
        request_id=hold.request_id,
        placed_at=hold.placed_at,
        expires_at=hold.expires_at,
    )
