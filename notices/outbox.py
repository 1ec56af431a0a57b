"""What waits to be delivered and what became of it: the rows of notices and notice_attempts."""

from datetime import datetime, timedelta
from typing import Literal

import msgspec

from ledger import Ledger, load_queries, new_id
from ledger.reading import shard_of
from notices.contents import TEST, TestData, body_of
from notices.endpoints import Endpoint
from notices.errors import EndpointDisabled, EndpointNotFound, NoticeNotFound

#: Far beyond what a delivery takes: a process that has one for so long was killed.
LEASE = timedelta(minutes=1)
#: Deliveries to one endpoint at a time, by all processes.
AT_ONE_ENDPOINT = 4
#: An endpoint that did nothing but fail for so long is disabled. Longer than one notice is tried.
PATIENCE = timedelta(days=5)
#: Notices are forgotten after this, delivered or not, with what they say.
KEPT_FOR = timedelta(days=30)

DISABLED_BY_FAILURES = f"nothing but failures for {PATIENCE.days} days"

_queries = load_queries("notices")


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """A notice that was leased to be delivered now. The secrets are sealed."""

    shard: int
    notice_id: str
    endpoint_id: str
    type: str
    body: str
    attempts: int  # with this one
    failures: int  # in a row before it
    url: str
    secret: bytes
    former_secret: bytes | None
    former_secret_until: datetime | None
    failing_since: datetime | None


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one delivery, and what is to become of its notice."""

    at: datetime
    status_code: int | None  # None: there was no answer
    error: str | None  # None: delivered
    duration_ms: int
    status: Literal["waiting", "delivered", "failed"]  # of the notice after it
    next_try_at: datetime
    disables: str | None = None  # why the endpoint is to be disabled at once


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to deliver a notice, as its account sees it; ``at`` is None of a notice that was not tried yet."""

    notice_id: str
    type: str
    created_at: datetime
    status: str
    next_try_at: datetime | None
    at: datetime | None
    status_code: int | None
    error: str | None
    duration_ms: int | None


class Outbox:
    """When Postgres is away, its methods raise one of ledger.UNREACHABLE."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._pool = ledger.pool

    # --- for who delivers

    async def take(self, now: datetime, *, room: int, room_for_failing: int) -> list[Due]:
        """Lease what is due: at most so many, of them at most so many to endpoints whose last delivery failed."""
        taken: list[Due] = []
        for row in await self._pool.fetch(_queries["due_shards"], now):
            failing = sum(due.failing_since is not None for due in taken)
            rows = await self._pool.fetch(
                _queries["take_notices"],
                *(row["shard"], now, now + LEASE),
                *(room - len(taken), max(room_for_failing - failing, 0), AT_ONE_ENDPOINT),
            )
            taken += [Due(**row) for row in rows]
        return taken

    async def note(self, due: Due, attempt: Attempt) -> str | None:
        """Write down what became of a delivery; returns why the endpoint is disabled, if this disabled it."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(
                _queries["note_attempt"],
                *(due.shard, due.notice_id, due.attempts, attempt.at),
                *(attempt.status_code, attempt.error, attempt.duration_ms),
            )
            failures = 0 if attempt.error is None else due.failures + 1
            await connection.execute(
                _queries["move_notice"],
                *(due.shard, due.notice_id, due.attempts, attempt.status, failures, attempt.next_try_at),
            )
            if attempt.error is None:
                await connection.execute(_queries["note_success_of_endpoint"], due.shard, due.endpoint_id)
                return None
            disabled: str | None = await connection.fetchval(
                _queries["note_failure_of_endpoint"],
                *(due.shard, due.endpoint_id, attempt.at, attempt.at - PATIENCE),
                *(DISABLED_BY_FAILURES, attempt.disables),
            )
            return disabled

    async def purge(self, before: datetime) -> int:
        """Forget the notices of what happened before this moment; returns how many."""
        shards = range(self._ledger.shards)
        return sum([await self._pool.fetchval(_queries["purge_notices"], shard, before) for shard in shards])

    async def waiting(self, now: datetime) -> tuple[int, float]:
        """How many notices wait for endpoints that are enabled, and the age in seconds of what the oldest tells of."""
        row = await self._pool.fetchrow(_queries["waiting_notices"], now)
        assert row is not None  # an aggregate gives one row
        return row["notices"], max(row["seconds"], 0)

    # --- for accounts

    async def deliveries(self, endpoint: Endpoint, *, limit: int) -> list[Delivery]:
        """The last attempts to deliver to the endpoint, newest first; before them what was not tried yet."""
        shard = self._shard(endpoint)
        rows = await self._pool.fetch(_queries["attempts_of_endpoint"], shard, endpoint.endpoint_id, limit)
        return [Delivery(**row) for row in rows]

    async def add_test(self, endpoint: Endpoint, now: datetime) -> str:
        """Have a test sent; returns its id. Raises EndpointDisabled, or EndpointNotFound when it was just deleted."""
        if endpoint.disabled_because is not None:
            raise EndpointDisabled(endpoint.endpoint_id, endpoint.disabled_because)
        body = body_of(TEST, now, TestData(endpoint.account_id, endpoint.endpoint_id))
        notice_id: str | None = await self._pool.fetchval(
            _queries["add_test"],
            *(self._shard(endpoint), endpoint.account_id, endpoint.endpoint_id, new_id("msg"), TEST, body, now),
        )
        if notice_id is None:
            raise EndpointNotFound(endpoint.endpoint_id)
        return notice_id

    async def send_again(self, endpoint: Endpoint, notice_id: str, now: datetime) -> None:
        """Deliver the notice once more, under its id. Raises EndpointDisabled and NoticeNotFound."""
        if endpoint.disabled_because is not None:
            raise EndpointDisabled(endpoint.endpoint_id, endpoint.disabled_because)
        found = await self._pool.fetchval(
            _queries["send_again"], self._shard(endpoint), endpoint.endpoint_id, notice_id, now
        )
        if found is None:
            raise NoticeNotFound(notice_id)

    def _shard(self, endpoint: Endpoint) -> int:
        return shard_of(endpoint.account_id, self._ledger.shards)
