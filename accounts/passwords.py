"""Passwords: argon2id, away from the event loop, a few at a time."""

import asyncio
import secrets
from collections.abc import Callable
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from accounts.errors import TooBusy

#: Each one takes 64 MiB and a core for a twentieth of a second (RFC 9106, second recommended option, the library's
#: default): more at once would be slower for everybody and let a flood of logins take the machine's memory.
MAX_AT_ONCE = 2
#: Beyond this the last in the queue would wait for several seconds.
MAX_WAITING = 128
RETRY_AFTER_S = 5

Result = TypeVar("Result")


class Passwords:
    """Hashes and verifies. ``hasher`` carries the parameters; hashes of other parameters verify, and are outdated."""

    def __init__(self, hasher: PasswordHasher) -> None:
        self._hasher = hasher
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)
        self._waiting = 0
        #: Stands in for the hash of a user that does not exist. Its password is known to nobody.
        self._nobody = hasher.hash(secrets.token_bytes(32))

    async def hash(self, password: str) -> str:
        """The password's hash, a PHC string. Raises TooBusy."""
        return await self._in_thread(lambda: self._hasher.hash(password))

    async def matches(self, stored: str | None, password: str) -> bool:
        """Whether this is the password. Without a stored hash the same work is done, and it is not. Raises TooBusy."""
        against = self._nobody if stored is None else stored
        verified = await self._in_thread(lambda: self._verifies(against, password))
        return verified and stored is not None

    def is_outdated(self, stored: str) -> bool:
        """Whether the hash was made with other parameters than those of today."""
        return self._hasher.check_needs_rehash(stored)

    def _verifies(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except VerifyMismatchError:
            return False

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        if self._waiting >= MAX_WAITING:
            raise TooBusy(retry_after_s=RETRY_AFTER_S)
        self._waiting += 1
        try:
            async with self._slots:
                return await asyncio.to_thread(work)
        finally:
            self._waiting -= 1
