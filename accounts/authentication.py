"""From the secret in a request to who asks. Every request passes here, so a known secret costs a hash and a look-up
in memory; Postgres is asked when it is new, or was asked too long ago.

How stale an answer can be: a session, a service token, and a key on a route that costs nothing is asked for again
after ``FRESH_FOR_S``, so that a deletion is seen by every worker within a second. A key on a metered route is judged
a second time, exactly, by the ledger under its lock; there the memory only has to be right about whose key it is,
which never changes.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar, assert_never

import asyncpg
from aiohttp import web

from accounts.principals import Principal
from accounts.tables import Tables
from accounts.tokens import Kind, Tokens, kind_of
from ledger import Ledger
from wire import ApiError

#: Below the promised second, which also has to hold the round trip to Postgres.
FRESH_FOR_S = 0.8
#: How long a key is remembered for metered routes, which the ledger guards.
METERED_FRESH_FOR_S = 60.0
#: How long a wrong secret is refused from memory. It cannot become right: secrets are made by us, from random bits.
REFUSED_FOR_S = 10.0
#: About 30 MB when full. Wrong secrets are remembered apart, so that a flood of them drives nobody else out.
MAX_REMEMBERED = 50_000

Value = TypeVar("Value")


class _Known:
    __slots__ = ("asked_at", "principal", "usable_until")

    def __init__(self, principal: Principal, asked_at: float, usable_until: float) -> None:
        self.principal = principal
        self.asked_at = asked_at
        self.usable_until = usable_until


class Authenticator:
    """One per process. ``clock`` is the time of day, for sessions that end; ``monotonic`` tells an answer's age."""

    def __init__(
        self, ledger: Ledger, tokens: Tokens, *, clock: Callable[[], datetime], monotonic: Callable[[], float]
    ) -> None:
        self._tables = Tables(ledger.pool)
        self._shards = list(range(ledger.shards))
        self._tokens = tokens
        self._clock = clock
        self._monotonic = monotonic
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._refused: OrderedDict[bytes, float] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[Principal | None]] = {}

    async def authenticate(self, request: web.Request) -> Principal:
        """Who asks, not older than a second.

        Raises ApiError unauthorized, the same for a secret that is unknown, deleted, revoked or over; and
        LedgerUnavailable when only Postgres could tell and does not answer.
        """
        return await self._authenticate(request, FRESH_FOR_S)

    async def authenticate_metered(self, request: web.Request) -> Principal:
        """Who asks, for a route that places a hold with the principal's ``key_id``.

        A deleted key may still pass here; the ledger refuses its hold with KeyInactive. Otherwise as ``authenticate``.
        """
        return await self._authenticate(request, METERED_FRESH_FOR_S)

    def forget(self, secret_hash: bytes) -> None:
        """Ask Postgres again the next time, because this process just changed what it would say."""
        self._known.pop(secret_hash, None)

    async def _authenticate(self, request: web.Request, key_fresh_for_s: float) -> Principal:
        secret = _secret_of(request)
        hashed = self._tokens.hash(secret)
        now = self._monotonic()
        known = self._known.get(hashed)
        if known is not None:
            fresh_for_s = key_fresh_for_s if known.principal.key_id is not None else FRESH_FOR_S
            if now - known.asked_at <= fresh_for_s and now < known.usable_until:
                self._known.move_to_end(hashed)
                return known.principal
        elif now < self._refused.get(hashed, now):
            raise _refusal()
        principal = await self._ask_once(hashed, secret)
        if principal is None:
            raise _refusal()
        return principal

    async def _ask_once(self, hashed: bytes, secret: str) -> Principal | None:
        """Ask Postgres, once for all requests that wait for the same secret."""
        asking = self._asking.get(hashed)
        if asking is None:
            kind = kind_of(secret)
            if kind is None:
                return None
            asking = asyncio.create_task(self._ask(hashed, kind), name="authenticate")
            self._asking[hashed] = asking
            asking.add_done_callback(lambda done: self._answered(hashed, done))
        # Shielded: the request that asked first may be cancelled, the others still want the answer.
        return await asyncio.shield(asking)

    async def _ask(self, hashed: bytes, kind: Kind) -> Principal | None:
        asked_at = self._monotonic()
        now = self._clock()
        record = await self._look_up(hashed, kind, now)
        if record is None:
            self._known.pop(hashed, None)
            _remember(self._refused, hashed, asked_at + REFUSED_FOR_S)
            return None
        expires_at = record["expires_at"]
        usable_until = math.inf if expires_at is None else asked_at + (expires_at - now).total_seconds()
        principal = Principal(
            kind=kind,
            id=record["id"],
            role=record["role"],
            account_id=record["account_id"],
            user_id=record["user_id"],
            key_id=record["key_id"],
        )
        _remember(self._known, hashed, _Known(principal, asked_at, usable_until))
        return principal

    async def _look_up(self, hashed: bytes, kind: Kind, now: datetime) -> asyncpg.Record | None:
        match kind:
            case "key":
                return await self._tables.row("key_by_secret", hashed, self._shards)
            case "session":
                return await self._tables.row("session_by_token", hashed, now)
            case "service":
                return await self._tables.row("service_by_token", hashed)
            case _:
                assert_never(kind)

    def _answered(self, hashed: bytes, asking: asyncio.Task[Principal | None]) -> None:
        del self._asking[hashed]
        if not asking.cancelled():
            asking.exception()  # looked at, so that asyncio does not complain when every request that asked is gone


def _remember(memory: OrderedDict[bytes, Value], hashed: bytes, value: Value) -> None:
    memory[hashed] = value
    memory.move_to_end(hashed)
    if len(memory) > MAX_REMEMBERED:
        memory.popitem(last=False)


def has_secret(request: web.Request) -> bool:
    """Whether the request claims to be from somebody; it may be a false claim."""
    return "Authorization" in request.headers or "x-api-key" in request.headers


def _secret_of(request: web.Request) -> str:
    """The secret in ``Authorization: Bearer`` or, as some SDKs send it, in ``x-api-key``."""
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        secret = request.headers.get("x-api-key", "")
    secret = secret.strip()
    if not secret:
        raise _refusal("no API key: send Authorization: Bearer <key>")
    return secret


def _refusal(message: str = "the API key is not valid") -> ApiError:
    return ApiError("unauthorized", message, headers={"WWW-Authenticate": "Bearer"})
