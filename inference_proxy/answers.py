"""Interim: to be replaced whole by the store of answers."""

from collections.abc import Callable
from datetime import datetime

import msgspec

from ledger import Ledger

MAX_KEPT = 4 * 1024 * 1024


class StoredAnswer(msgspec.Struct, frozen=True):
    hold_id: str
    status: int
    content_type: str
    headers: dict[str, str]
    body: bytes


class AnswerStore:
    def __init__(self, ledger: Ledger, clock: Callable[[], datetime]) -> None:
        pass

    async def claim(self, account_id: str, key: str, request_hash: bytes, hold_id: str) -> StoredAnswer | None:
        return None

    async def keep(self, account_id: str, key: str, hold_id: str, answer: StoredAnswer) -> None:
        pass

    async def release(self, account_id: str, key: str, hold_id: str) -> None:
        pass
