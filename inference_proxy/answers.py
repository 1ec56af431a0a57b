"""Stored answers: a request with an Idempotency-Key that was served and charged is answered again without either.

A key is claimed before its request is served, for the hold that the request is about to place; one statement decides
between those who claim at once. After that the key stands for this hold, and what became of it is asked of the ledger
and nobody else: charged, the answer is given again; open, it is being served; ended without a charge, the key is free
for another try. So no crash between two writes can make a second charge, only an answer that cannot be given again.
"""

from datetime import datetime, timedelta

import msgspec

from inference_proxy.refusals import SOON
from ledger import Ledger, load_queries
from ledger.events import HoldExpired, HoldSettled, HoldSettledLate, HoldVoided
from ledger.reading import shard_of
from wire import ApiError

#: For so long, by Postgres' own clock, a claimed key waits for its hold. A host whose clock is wrong would take it from
#: a request that is just about to place it. Whoever takes longer finds out when it confirms its claim.
CLAIM_FOR = timedelta(seconds=30)
#: A larger answer is not kept. It is far above what a model writes; what has it is an answer with much data in it.
MAX_KEPT = 4 * 1024 * 1024  # bytes
#: How long an answer can be given again, as the docs tell clients.
KEPT_FOR = timedelta(hours=24)

_queries = load_queries("inference_proxy")


class StoredAnswer(msgspec.Struct, frozen=True):
    """What a client was answered, a stream as all of its bytes."""

    hold_id: str
    status: int
    content_type: str
    headers: dict[str, str]
    body: bytes


class AnswerStore:
    """The keys of all accounts. Each method is one statement or a few, none of which waits for a request; when
    Postgres is away they raise one of ledger.UNREACHABLE."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def claim(self, account_id: str, key: str, request_hash: bytes, hold_id: str) -> StoredAnswer | None:
        """None: the key is ours, and the request is to be served under this hold, placed and confirmed. Else the
        answer that it was served and charged with before.

        ``request_hash`` is the SHA-256 of what is asked. Raises ApiError idempotency_mismatch when the key stands for
        something else, and conflict while the request is being served (the client is to try again) or when it was
        charged and its answer is not kept (it is not to). Claimed again for the same hold, a key is still ours.
        """
        shard = self._shard(account_id)
        pool = self._ledger.pool
        if await pool.fetchval(_queries["claim_key"], shard, account_id, key, request_hash, hold_id) is not None:
            return None
        claim = await pool.fetchrow(_queries["claim_of_key"], shard, account_id, key, CLAIM_FOR)
        if claim is None:  # released between our two questions
            raise being_served()
        if claim["request_hash"] != request_hash:
            raise ApiError(
                "idempotency_mismatch",
                "the Idempotency-Key was used before with another body",
                headers={"x-should-retry": "false"},
            )
        former = claim["hold_id"]
        if former == hold_id:
            return None
        if await self._is_charged(account_id, former, claim["is_stale"]):
            return await self._kept(shard, account_id, key, former)
        taken = await pool.fetchval(
            _queries["take_over_key"], shard, account_id, key, former, hold_id, claim["claimed_at"]
        )
        if taken is None:
            raise being_served()
        return None

    async def confirm(self, account_id: str, key: str, hold_id: str) -> bool:
        """Whether the key is still this hold's, now that it is placed. If so, nobody takes it over before its end: who
        saw the claim as it was before finds that it is another by now."""
        confirmed = await self._ledger.pool.fetchval(
            _queries["confirm_key"], self._shard(account_id), account_id, key, hold_id
        )
        return confirmed is not None

    async def keep(self, account_id: str, key: str, hold_id: str, answer: StoredAnswer) -> None:
        """Keep the answer, unless it is too large or another try has the key by now.

        It is given again only if its hold is settled; so it must be kept before its settlement is submitted.
        """
        if len(answer.body) <= MAX_KEPT:
            await self._ledger.pool.execute(
                _queries["keep_answer"],
                self._shard(account_id),
                account_id,
                key,
                hold_id,
                answer.status,
                answer.content_type,
                msgspec.json.encode(answer.headers).decode(),
                answer.body,
            )

    async def release(self, account_id: str, key: str, hold_id: str) -> None:
        """Give the key back: the request ended without a charge, and the next try runs anew, whatever it asks."""
        await self._ledger.pool.execute(_queries["release_key"], self._shard(account_id), account_id, key, hold_id)

    async def purge(self, before: datetime) -> int:
        """Forget the keys claimed before this moment, with their answers; returns how many."""
        pool = self._ledger.pool
        return sum([await pool.fetchval(_queries["purge_answers"], n, before) for n in range(self._ledger.shards)])

    async def _is_charged(self, account_id: str, hold_id: str, is_stale: bool) -> bool:
        """Whether the hold that has the key was charged; False when the key is free, as it is when it is stale and
        there is no hold. Raises ApiError conflict while neither is so."""
        events = [stored.event for stored in await self._ledger.events_of_hold(account_id, hold_id)]
        if any(isinstance(event, HoldSettled | HoldSettledLate) for event in events):
            return True
        is_over = any(isinstance(event, HoldVoided | HoldExpired) for event in events) if events else is_stale
        if not is_over:
            raise being_served()
        return False

    async def _kept(self, shard: int, account_id: str, key: str, hold_id: str) -> StoredAnswer:
        # Asked for after the charge was seen: an answer that was kept is there by then.
        kept = await self._ledger.pool.fetchrow(_queries["kept_answer"], shard, account_id, key, hold_id)
        if kept is None:
            raise ApiError(
                "conflict",
                f"the request was served and charged before, and its answer is not kept; its receipt is {hold_id}",
                headers={"x-should-retry": "false"},
                fields={"hold_id": hold_id},
            )
        headers = msgspec.json.decode(kept["headers"], type=dict[str, str])
        return StoredAnswer(hold_id, kept["status"], kept["content_type"], headers, kept["body"])

    def _shard(self, account_id: str) -> int:
        return shard_of(account_id, self._ledger.shards)


def being_served() -> ApiError:
    """The refusal while another try has the key."""
    return ApiError("conflict", "a request with this Idempotency-Key is being served", headers=SOON)
