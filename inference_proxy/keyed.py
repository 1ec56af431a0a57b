"""A request with an Idempotency-Key: served and charged once, its answer given again to whoever repeats it."""

import asyncio

import structlog
from aiohttp import web

from inference_proxy.answers import AnswerStore, StoredAnswer
from inference_proxy.orders import Order
from ledger import UNREACHABLE

#: As Stripe says it of an answer that was stored.
REPLAYED = "idempotent-replayed"
#: Headers that are true of an answer whenever it is given; limits are of the moment.
LASTING = "x-tollgate-"

#: When Postgres says nothing, so long is waited for what a key needs of it; the pool's own queue has no end.
KEY_WITHIN_S = 5.0

_log = structlog.get_logger(__name__)


class KeyTaken(Exception):
    """Another try has taken the key over, because this one took so long to place its hold: nothing may be forwarded."""


class Keyed:
    """What becomes of one such request. Its answer is kept before it is charged, and counts once it is."""

    def __init__(self, store: AnswerStore, order: Order, key: str) -> None:
        self._store = store
        self._order = order
        self._key = key

    async def claim(self) -> web.Response | None:
        """The answer that was given before; None when the request is ours to serve now. Raises ApiError for a key of
        another request, and while somebody else serves this one."""
        order = self._order
        async with asyncio.timeout(KEY_WITHIN_S):
            stored = await self._store.claim(order.account_id, self._key, order.fingerprint, order.hold_id)
        if stored is None:
            return None
        return web.Response(
            body=stored.body,
            status=stored.status,
            content_type=stored.content_type,
            headers={**stored.headers, "cache-control": "no-cache", REPLAYED: "true"},
        )

    async def confirm(self) -> None:
        """The hold is placed: make sure that the key is still its own. Raises KeyTaken."""
        order = self._order
        async with asyncio.timeout(KEY_WITHIN_S):
            is_ours = await self._store.confirm(order.account_id, self._key, order.hold_id)
        if not is_ours:
            raise KeyTaken

    async def keep(self, body: bytes, content_type: str, headers: dict[str, str]) -> None:
        """Keep the answer. One that cannot be kept is served and charged all the same."""
        order = self._order
        lasting = {name: value for name, value in headers.items() if name.startswith(LASTING)}
        answer = StoredAnswer(hold_id=order.hold_id, status=200, content_type=content_type, headers=lasting, body=body)
        try:
            async with asyncio.timeout(KEY_WITHIN_S):
                await self._store.keep(order.account_id, self._key, order.hold_id, answer)
        except UNREACHABLE as error:
            _log.warning("answer.not_kept", hold_id=order.hold_id, error=repr(error))

    async def release(self) -> None:
        """It was refused before it had a hold: the next one with this key is served anew."""
        try:
            async with asyncio.timeout(KEY_WITHIN_S):
                await self._store.release(self._order.account_id, self._key, self._order.hold_id)
        except UNREACHABLE as error:
            _log.warning("answer.not_released", hold_id=self._order.hold_id, error=repr(error))
