"""Events on their way to an endpoint: signed anew for each attempt, and tried until they are taken.

Stripe promises at least once, in any order. So one event never waits for another here.
"""

import asyncio
import hashlib
import hmac
import time
from typing import Any, Final

import aiohttp
import msgspec

#: Seconds between two attempts: the first few of them much closer than Stripe's hours, so that a test can wait for it.
RETRY_AFTER_S: Final = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
ATTEMPT_TIMEOUT_S: Final = 10.0

Attempt = dict[str, Any]


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where events go, and what they are signed with. Events ``held`` are kept back until they are asked for."""

    url: str
    secret: str
    held: bool = False
    copies: int = 1  # deliveries of each event that was taken


def signature(secret: str, body: bytes, timestamp: int) -> str:
    """The ``Stripe-Signature`` of a body: HMAC-SHA256 over the time and the bytes, by Stripe's published scheme v1."""
    mac = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256)
    return f"t={timestamp},v1={mac.hexdigest()}"


class Courier:
    """Delivers events to the one endpoint, and remembers every attempt."""

    def __init__(self) -> None:
        self.endpoint: Endpoint | None = None
        self.attempts: list[Attempt] = []  # {"event", "type", "status"}; status 0: there was no answer
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, event: dict[str, Any], *, even_if_held: bool = False) -> None:
        """Deliver in the background, as often as the endpoint wishes."""
        if self.endpoint is None or (self.endpoint.held and not even_if_held):
            return
        task = asyncio.create_task(self._deliver(self.endpoint, event), name=f"deliver {event['id']}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _deliver(self, endpoint: Endpoint, event: dict[str, Any]) -> None:
        body = msgspec.json.encode(event)
        for _ in range(endpoint.copies):
            for pause in (*RETRY_AFTER_S, None):
                if await self._try(endpoint, event, body) or pause is None:
                    break
                await asyncio.sleep(pause)

    async def _try(self, endpoint: Endpoint, event: dict[str, Any], body: bytes) -> bool:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ATTEMPT_TIMEOUT_S))
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": signature(endpoint.secret, body, int(time.time())),
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        }
        status = 0
        try:
            async with self._session.post(endpoint.url, data=body, headers=headers) as answer:
                status = answer.status
        except (aiohttp.ClientError, TimeoutError):
            pass
        self.attempts.append({"event": event["id"], "type": event["type"], "status": status})
        return 200 <= status < 300
