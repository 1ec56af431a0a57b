"""Service tokens: what operators' programs authenticate with, such as a web shop's backend or a finance job."""

from collections.abc import Callable
from datetime import datetime

import asyncpg
import msgspec
import structlog

from accounts.errors import ServiceTokenNotFound
from accounts.principals import Role
from accounts.tables import Tables
from accounts.tokens import Tokens
from ledger import new_id

_log = structlog.get_logger(__name__)


class ServiceToken(msgspec.Struct, frozen=True, kw_only=True):
    """One operator's program. With the role customer it may only look users up."""

    id: str
    name: str
    role: Role
    created_at: datetime
    revoked_at: datetime | None = None


class NewServiceToken(msgspec.Struct, frozen=True):
    """A token that was just made. Its secret is shown once."""

    token: ServiceToken
    secret: str

    def __repr__(self) -> str:
        return f"NewServiceToken({self.token.id})"


class ServiceTokens:
    """The commands and queries about service tokens."""

    def __init__(self, pool: asyncpg.Pool, tokens: Tokens, *, clock: Callable[[], datetime]) -> None:
        self._tables = Tables(pool)
        self._tokens = tokens
        self._clock = clock

    async def create(self, *, name: str, role: Role) -> NewServiceToken:
        """A new token. Raises LedgerUnavailable."""
        secret = self._tokens.make("service")
        token = ServiceToken(id=new_id("token"), name=name, role=role, created_at=self._clock())
        await self._tables.run("insert_service_token", token.id, name, role, secret.hash, token.created_at)
        _log.info("service_token.created", token_id=token.id, role=role)
        return NewServiceToken(token, secret.text)

    async def revoke(self, token_id: str) -> None:
        """End a token for ever; every worker refuses it within a second. Raises ServiceTokenNotFound."""
        if await self._tables.value("revoke_service_token", token_id, self._clock()) is None:
            raise ServiceTokenNotFound(token_id)
        _log.info("service_token.revoked", token_id=token_id)

    async def all(self) -> list[ServiceToken]:
        """Every token, revoked ones too, oldest first."""
        return [ServiceToken(**record) for record in await self._tables.rows("service_tokens")]
