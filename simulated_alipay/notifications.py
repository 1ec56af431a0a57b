"""Notifications on their way: signed, posted as a form, and tried until they are answered ``success``.

Alipay promises at least once, in any order. So one never waits for another here.
"""

import asyncio
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
import msgspec
from cryptography.hazmat.primitives.asymmetric import rsa

from simulated_alipay.signatures import sign, signed_text

#: Seconds between two attempts: much closer than Alipay's minutes, so that a test can wait for it.
RETRY_AFTER_S: Final = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
ATTEMPT_TIMEOUT_S: Final = 10.0


class Delivery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a test wishes of deliveries. ``held`` ones are kept back."""

    held: bool = False
    copies: int = 1  # deliveries of each that was taken


class Courier:
    """Delivers notifications, and remembers every one and every attempt."""

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        self.wishes = Delivery()
        self.bodies: list[bytes] = []
        self.attempts: list[dict[str, Any]] = []  # {"status", "answer"}; status 0: there was none
        self._key = key
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def signed(self, fields: dict[str, str]) -> bytes:
        """The body of a notification."""
        return urlencode({**fields, "sign_type": "RSA2", "sign": sign(self._key, signed_text(fields))}).encode()

    def send(self, url: str, fields: dict[str, str]) -> None:
        """Deliver in the background."""
        body = self.signed(fields)
        self.bodies.append(body)
        if self.wishes.held:
            return
        task = asyncio.create_task(self._deliver(url, body), name=f"deliver {fields['notify_id']}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def _deliver(self, url: str, body: bytes) -> None:
        for _ in range(self.wishes.copies):
            for pause in (*RETRY_AFTER_S, None):
                if await self._try(url, body) or pause is None:
                    break
                await asyncio.sleep(pause)

    async def _try(self, url: str, body: bytes) -> bool:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ATTEMPT_TIMEOUT_S))
        headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
        status, text = 0, ""
        try:
            async with self._session.post(url, data=body, headers=headers) as answer:
                status, text = answer.status, await answer.text()
        except (aiohttp.ClientError, TimeoutError):
            pass
        self.attempts.append({"status": status, "answer": text})
        return text == "success"
