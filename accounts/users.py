"""Users: registering, logging in, and finding one. All of it is personal data, so none of it is an event."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import msgspec
import structlog

from accounts.errors import EmailTaken, WrongCredentials
from accounts.operators import open_account
from accounts.passwords import Passwords
from accounts.principals import Role
from accounts.tables import Tables
from accounts.tokens import Tokens
from ledger import AccountState, Ledger, new_id

#: A working week: nobody logs in twice in one, and a stolen session ends.
SESSION_LIFETIME = timedelta(days=7)

_log = structlog.get_logger(__name__)


class User(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who can log in. Several users may share an account."""

    id: str
    email: str
    name: str
    role: Role
    account_id: str
    created_at: datetime


class Registered(msgspec.Struct, frozen=True):
    """A new user and their account, still empty."""

    user: User
    account: AccountState


class Session(msgspec.Struct, frozen=True):
    """A login. The token is shown once."""

    user: User
    token: str
    expires_at: datetime

    def __repr__(self) -> str:
        return f"Session({self.user.id}, until {self.expires_at})"


class Users:
    """The commands and queries about users."""

    def __init__(
        self,
        ledger: Ledger,
        tokens: Tokens,
        passwords: Passwords,
        *,
        currency: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._ledger = ledger
        self._tables = Tables(ledger.pool)
        self._tokens = tokens
        self._passwords = passwords
        self._currency = currency
        self._clock = clock

    async def register(self, *, email: str, name: str, password: str, role: Role = "customer") -> Registered:
        """A new user with a new account.

        Raises EmailTaken, TooBusy, LedgerUnavailable. The account is opened first: whatever fails after it leaves an
        empty account that nobody can reach, and never a user without one.
        """
        if await self.by_email(email) is not None:
            raise EmailTaken
        password_hash = await self._passwords.hash(password)
        account = await open_account(self._ledger, currency=self._currency)
        user = User(
            id=new_id("user"),
            email=email,
            name=name,
            role=role,
            account_id=account.account_id,
            created_at=self._clock(),
        )
        try:
            await self._tables.run(
                "insert_user", user.id, email, name, password_hash, role, user.account_id, user.created_at
            )
        except asyncpg.UniqueViolationError as error:
            if error.constraint_name != "users_email_key":
                raise
            raise EmailTaken from error
        _log.info("user.registered", user_id=user.id, account_id=user.account_id, role=role)
        return Registered(user, account)

    async def login(self, *, email: str, password: str) -> Session:
        """A new session. Raises WrongCredentials, after the same work whether the address is known or not; TooBusy."""
        record = await self._tables.row("password_of", email)
        stored = None if record is None else record["password_hash"]
        if not await self._passwords.matches(stored, password):
            raise WrongCredentials
        assert record is not None  # nothing matches an unknown address
        user = await self.by_id(record["id"])
        if user is None:  # erased while the password was verified
            raise WrongCredentials
        await self._renew_hash(user.id, stored, password)
        return await self._open_session(user)

    async def by_id(self, user_id: str) -> User | None:
        return _user(await self._tables.row("user_by_id", user_id))

    async def by_email(self, email: str) -> User | None:
        """The user with this e-mail address, in whatever case."""
        return _user(await self._tables.row("user_by_email", email))

    async def of_account(self, account_id: str) -> list[User]:
        """The account's users, the first one first."""
        return [User(**record) for record in await self._tables.rows("users_of_account", account_id)]

    async def _renew_hash(self, user_id: str, stored: Any, password: str) -> None:
        # The password is known only now: this is the one moment at which stronger parameters can reach an old hash.
        if self._passwords.is_outdated(stored):
            await self._tables.run("replace_password_hash", user_id, stored, await self._passwords.hash(password))
            _log.info("password.rehashed", user_id=user_id)

    async def _open_session(self, user: User) -> Session:
        secret = self._tokens.make("session")
        now = self._clock()
        await self._tables.run("delete_expired_sessions", user.id, now)
        await self._tables.run("insert_session", secret.hash, user.id, now, now + SESSION_LIFETIME)
        _log.info("session.opened", user_id=user.id)
        return Session(user, secret.text, now + SESSION_LIFETIME)


def _user(record: asyncpg.Record | None) -> User | None:
    return None if record is None else User(**record)
