"""Where an account wants its notices: the rows of webhook_endpoints."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import msgspec
import structlog
from msgspec import UNSET, UnsetType

from ledger import Ledger, load_queries, new_id
from ledger.reading import shard_of
from notices.errors import EndpointNotFound, TooManyEndpoints
from notices.signing import SigningSecrets
from notices.targets import Targets

#: Of one account. Each event is sent to each of them.
MAX_ENDPOINTS = 10
#: So long a secret that was replaced signs as well, for receivers to be given the new one.
FORMER_SECRET_FOR = timedelta(hours=24)

DISABLED_BY_OWNER = "disabled by the account"

_log = structlog.get_logger(__name__)
_queries = load_queries("notices")


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One receiver of an account. Its secret is shown once and then only sealed."""

    endpoint_id: str
    account_id: str
    url: str
    types: list[str] | None  # of notices; None = all
    former_secret_until: datetime | None
    failing_since: datetime | None
    disabled_because: str | None  # None = it is enabled
    created_at: datetime


class Endpoints:
    """The commands and queries about endpoints. When Postgres is away, they raise one of ledger.UNREACHABLE."""

    def __init__(
        self, ledger: Ledger, secrets: SigningSecrets, targets: Targets, *, clock: Callable[[], datetime]
    ) -> None:
        self._ledger = ledger
        self._secrets = secrets
        self._targets = targets
        self._clock = clock

    async def create(self, account_id: str, *, url: str, types: Sequence[str] | None) -> tuple[Endpoint, str]:
        """A new endpoint and its secret. Raises TargetRefused and TooManyEndpoints."""
        await self._targets.check(url)
        shard, secret = self._shard(account_id), self._secrets.make()
        sealed = self._secrets.seal(secret)
        async with self._ledger.pool.acquire() as connection, connection.transaction():
            await connection.execute(_queries["lock_endpoints"], account_id)
            row = await connection.fetchrow(
                _queries["add_endpoint"],
                *(shard, new_id("whe"), account_id, url, types, sealed, self._clock(), MAX_ENDPOINTS),
            )
        if row is None:
            raise TooManyEndpoints(MAX_ENDPOINTS)
        endpoint = Endpoint(**row)
        _log.info("webhook_endpoint.created", endpoint_id=endpoint.endpoint_id, account_id=account_id)
        return endpoint, secret

    async def of_account(self, account_id: str) -> list[Endpoint]:
        """Oldest first."""
        rows = await self._ledger.pool.fetch(
            _queries["endpoints_of_account"], self._shard(account_id), account_id, None
        )
        return [Endpoint(**row) for row in rows]

    async def get(self, account_id: str, endpoint_id: str) -> Endpoint:
        """Raises EndpointNotFound."""
        row = await self._ledger.pool.fetchrow(
            _queries["endpoints_of_account"], self._shard(account_id), account_id, endpoint_id
        )
        if row is None:
            raise EndpointNotFound(endpoint_id)
        return Endpoint(**row)

    async def change(
        self,
        account_id: str,
        endpoint_id: str,
        *,
        url: str | UnsetType = UNSET,
        types: Sequence[str] | UnsetType | None = UNSET,
        disabled: bool | UnsetType = UNSET,
    ) -> Endpoint:
        """What is not said stays, also when somebody else changes it now. Raises EndpointNotFound and TargetRefused."""
        if url is not UNSET:
            await self.get(account_id, endpoint_id)
            await self._targets.check(url)
        row = await self._ledger.pool.fetchrow(
            _queries["change_endpoint"],
            *(self._shard(account_id), account_id, endpoint_id),
            *(None if url is UNSET else url, types is not UNSET, None if types is UNSET else types),
            *(None if disabled is UNSET else disabled, DISABLED_BY_OWNER),
        )
        if row is None:
            raise EndpointNotFound(endpoint_id)
        _log.info("webhook_endpoint.changed", endpoint_id=endpoint_id, account_id=account_id)
        return Endpoint(**row)

    async def rotate_secret(self, account_id: str, endpoint_id: str) -> tuple[Endpoint, str]:
        """A new secret; the one before it signs as well for FORMER_SECRET_FOR. Raises EndpointNotFound."""
        secret = self._secrets.make()
        row = await self._ledger.pool.fetchrow(
            _queries["rotate_secret"],
            *(self._shard(account_id), account_id, endpoint_id),
            *(self._secrets.seal(secret), self._clock() + FORMER_SECRET_FOR),
        )
        if row is None:
            raise EndpointNotFound(endpoint_id)
        _log.info("webhook_endpoint.secret_rotated", endpoint_id=endpoint_id, account_id=account_id)
        return Endpoint(**row), secret

    async def delete(self, account_id: str, endpoint_id: str) -> None:
        """And everything that was made for it. Raises EndpointNotFound."""
        shard = self._shard(account_id)
        deleted = await self._ledger.pool.fetchval(_queries["delete_endpoint"], shard, account_id, endpoint_id)
        if deleted is None:
            raise EndpointNotFound(endpoint_id)
        _log.info("webhook_endpoint.deleted", endpoint_id=endpoint_id, account_id=account_id)

    def _shard(self, account_id: str) -> int:
        return shard_of(account_id, self._ledger.shards)
