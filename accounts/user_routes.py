"""/v1/users: registering, logging in, and who one is."""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from accounts.authentication import Authenticator, has_secret
from accounts.fields import Claim, Email, Name, NewPassword
from accounts.operators import account_of
from accounts.principals import Principal, Role, require_account
from accounts.refusals import as_api_errors, too_many
from accounts.throttle import Throttle
from accounts.users import User, Users
from ledger import AccountState, Ledger
from wire import ApiError, Cents, Route, cents_of, json_reply, read_json, read_query

#: One address may be a whole company behind one router, or a web shop that logs all of its customers in.
ADDRESS_BURST = 120
ADDRESS_INTERVAL_S = 0.5
#: One person mistypes a few times; somebody who guesses has 360 tries an hour, and a login that succeeds resets it.
EMAIL_BURST = 10
EMAIL_INTERVAL_S = 10.0


class NewUser(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    email: Email
    name: Name
    password: NewPassword


class Credentials(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    email: Claim
    password: Claim


class EmailQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    email: Email


class CreditGrant(msgspec.Struct, kw_only=True):
    """Credit that nobody paid for, as far as it can still be spent."""

    id: str
    left_cents: Cents
    expires_at: datetime | None  # null: never
    priority: int  # the lower, the earlier it is spent


class UserAnswer(msgspec.Struct, kw_only=True):
    id: str | None  # null, with email and name: a key of an account that has no user
    email: str | None
    name: str | None
    role: Role
    account_id: str
    currency: str
    credit_balance_cents: Cents  # posted: what open holds have set aside is still in it
    held_cents: Cents
    available_cents: Cents
    credit_grants: list[CreditGrant]  # part of the balance, in the order in which they are spent, before paid money


class LoginAnswer(UserAnswer, kw_only=True):
    session_token: str
    expires_at: datetime


class EmailAnswer(msgspec.Struct, kw_only=True):
    """Strangers learn that the address is known; only operators learn whose it is."""

    exists: bool
    id: str | UnsetType = UNSET
    email: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    role: Role | UnsetType = UNSET
    account_id: str | UnsetType = UNSET
    currency: str | UnsetType = UNSET
    credit_balance_cents: Decimal | UnsetType = UNSET
    held_cents: Decimal | UnsetType = UNSET
    available_cents: Decimal | UnsetType = UNSET
    credit_grants: list[CreditGrant] | UnsetType = UNSET


class UserRoutes:
    """The handlers of /v1/users."""

    def __init__(
        self, ledger: Ledger, users: Users, authenticator: Authenticator, *, monotonic: Callable[[], float]
    ) -> None:
        self._ledger = ledger
        self._users = users
        self._authenticator = authenticator
        self._addresses = Throttle(burst=ADDRESS_BURST, interval_s=ADDRESS_INTERVAL_S, monotonic=monotonic)
        self._emails = Throttle(burst=EMAIL_BURST, interval_s=EMAIL_INTERVAL_S, monotonic=monotonic)

    def routes(self) -> list[Route]:
        return [
            Route(
                method="POST",
                path="/v1/users",
                handler=self.create_user,
                summary="Register a user, with an account of their own",
                tag="users",
                auth="public",
                body=NewUser,
                answer=UserAnswer,
                status=201,
                errors=("conflict", "rate_limit_exceeded", "ledger_unavailable"),
            ),
            Route(
                method="POST",
                path="/v1/users/login",
                handler=self.login,
                summary="Exchange e-mail and password for a session token",
                tag="users",
                auth="public",
                body=Credentials,
                answer=LoginAnswer,
                errors=("invalid_credentials", "rate_limit_exceeded", "ledger_unavailable"),
            ),
            Route(
                method="GET",
                path="/v1/users/me",
                handler=self.get_current_user,
                summary="The user of this key or session, with the live balance",
                tag="users",
                answer=UserAnswer,
                errors=("forbidden", "not_found", "ledger_unavailable"),
            ),
            Route(
                method="GET",
                path="/v1/users/by-email",
                handler=self.find_user_by_email,
                summary="Whether an e-mail address is registered; for operators, whose it is",
                tag="users",
                auth="public",
                query=EmailQuery,
                answer=EmailAnswer,
                errors=("unauthorized", "not_found", "rate_limit_exceeded", "ledger_unavailable"),
            ),
        ]

    async def create_user(self, request: web.Request) -> web.Response:
        body = await read_json(request, NewUser)
        with as_api_errors():
            registered = await self._users.register(email=body.email, name=body.name, password=body.password)
        return json_reply(_answer(registered.user, registered.account), status=201)

    async def login(self, request: web.Request) -> web.Response:
        body = await read_json(request, Credentials)
        email = body.email.lower()
        self._slow_down(request, email)
        with as_api_errors():
            session = await self._users.login(email=body.email, password=body.password)
            account = await account_of(self._ledger, session.user.account_id)
        self._emails.forgive(email)
        answer = LoginAnswer(
            **msgspec.structs.asdict(_answer(session.user, account)),
            session_token=session.token,
            expires_at=session.expires_at,
        )
        return json_reply(answer)

    async def get_current_user(self, request: web.Request) -> web.Response:
        principal = await self._authenticator.authenticate(request)
        account_id = require_account(principal)
        user = None if principal.user_id is None else await self._users.by_id(principal.user_id)
        with as_api_errors():
            account = await account_of(self._ledger, account_id)
        return json_reply(_answer(user, account))

    async def find_user_by_email(self, request: web.Request) -> web.Response:
        query = read_query(request, EmailQuery)
        principal = await self._authenticator.authenticate(request) if has_secret(request) else None
        is_operator = principal is not None and _is_operator(principal)
        if not is_operator:
            self._slow_down(request)
        user = await self._users.by_email(query.email)
        if user is None:
            raise ApiError("not_found", "nobody is registered with this e-mail address", param="email")
        if not is_operator:
            return json_reply(EmailAnswer(exists=True))
        with as_api_errors():
            account = await account_of(self._ledger, user.account_id)
        return json_reply(EmailAnswer(exists=True, **msgspec.structs.asdict(_answer(user, account))))

    def _slow_down(self, request: web.Request, email: str | None = None) -> None:
        """Raises ApiError rate_limit_exceeded when this address, or somebody for this e-mail, tried too often."""
        wait_s = self._addresses.take(request.remote or "")
        if not wait_s and email is not None:
            wait_s = self._emails.take(email)
        if wait_s:
            raise too_many("too many tries; wait a little", wait_s)


def _is_operator(principal: Principal) -> bool:
    return principal.kind == "service" or principal.role == "admin"


def _answer(user: User | None, account: AccountState) -> UserAnswer:
    return UserAnswer(
        id=None if user is None else user.id,
        email=None if user is None else user.email,
        name=None if user is None else user.name,
        role="customer" if user is None else user.role,
        account_id=account.account_id,
        currency=account.currency,
        credit_balance_cents=cents_of(account.posted),
        held_cents=cents_of(account.held),
        available_cents=cents_of(account.available),
        credit_grants=credit_grants(account),
    )


def credit_grants(account: AccountState) -> list[CreditGrant]:
    """The account's open grants, without what has lapsed of them."""
    return [
        CreditGrant(
            id=grant.grant_id,
            left_cents=cents_of(grant.left),
            expires_at=grant.expires_at,
            priority=grant.priority,
        )
        for grant in account.grants
        if grant.left
    ]
