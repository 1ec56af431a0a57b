"""API keys: the secret and the name stand in our tables, the key itself and its limits are events of its account."""

from collections.abc import Callable
from datetime import datetime

import asyncpg
import msgspec
import structlog

from accounts.authentication import Authenticator
from accounts.errors import KeyNotFound
from accounts.tables import Tables, answered
from accounts.tokens import Tokens
from ledger import CreateKey, DeleteKey, KeyState, Ledger, Microcents, new_id

_log = structlog.get_logger(__name__)


class NamedKey(msgspec.Struct, frozen=True):
    """A key as its account sees it."""

    state: KeyState
    name: str | None  # None, as the prefix: the key's label was erased, or it was made without a secret
    prefix: str | None


class NewKey(msgspec.Struct, frozen=True):
    """A key that was just made. Its secret is shown once."""

    key_id: str
    name: str
    secret: str
    prefix: str
    rate_limit_rpm: int | None
    monthly_budget: Microcents | None
    created_at: datetime

    def __repr__(self) -> str:
        return f"NewKey({self.key_id}, {self.prefix}…)"


class Keys:
    """The commands and queries about keys."""

    def __init__(
        self, ledger: Ledger, tokens: Tokens, authenticator: Authenticator, *, clock: Callable[[], datetime]
    ) -> None:
        self._ledger = ledger
        self._tables = Tables(ledger.pool)
        self._tokens = tokens
        self._authenticator = authenticator
        self._clock = clock

    async def create(
        self,
        account_id: str,
        *,
        user_id: str | None,
        name: str,
        rate_limit_rpm: int | None,
        monthly_budget: Microcents | None,
    ) -> NewKey:
        """A new key. Raises the ledger's AccountUnknown and InvalidAmount, and LedgerUnavailable.

        The secret is stored before the key exists: a key without a secret would count and could never be used or
        shown again, while a secret without its key opens nothing.
        """
        secret = self._tokens.make("key")
        key_id = new_id("key")
        await self._tables.run(
            "insert_key_secret", key_id, account_id, user_id, name, secret.prefix, secret.hash, self._clock()
        )
        committed = await self._ledger.submit(
            CreateKey(
                stream_id=account_id,
                key_id=key_id,
                rate_limit_rpm=rate_limit_rpm,
                monthly_budget_microcents=monthly_budget,
            )
        )
        _log.info("key.created", key_id=key_id, account_id=account_id, user_id=user_id)
        return NewKey(key_id, name, secret.text, secret.prefix, rate_limit_rpm, monthly_budget, committed.stored.at)

    async def of_account(self, account_id: str) -> list[NamedKey]:
        """The account's keys, deleted ones too, oldest first."""
        labels = {record["key_id"]: record for record in await self._tables.rows("key_labels", account_id)}
        states = await answered(self._ledger.keys(account_id))
        return [_named(state, labels) for state in states]

    async def delete(self, account_id: str, key_id: str) -> None:
        """End a key for ever. Requests it has in flight are still settled.

        Raises KeyNotFound when it is not an active key of this account. Who deletes it at the same time as somebody
        else succeeds as well: there is one event.
        """
        states = await answered(self._ledger.keys(account_id))
        if not any(state.key_id == key_id and state.is_active for state in states):
            raise KeyNotFound(key_id)
        await self._ledger.submit(DeleteKey(stream_id=account_id, key_id=key_id))
        secret_hash = await self._tables.value("key_secret_hash", key_id)
        if secret_hash is not None:
            self._authenticator.forget(secret_hash)
        _log.info("key.deleted", key_id=key_id, account_id=account_id)


def _named(state: KeyState, labels: dict[str, asyncpg.Record]) -> NamedKey:
    label = labels.get(state.key_id)
    return NamedKey(state, None, None) if label is None else NamedKey(state, label["name"], label["prefix"])
