import asyncio
import threading

import pytest
from argon2 import PasswordHasher

from accounts import Passwords, TooBusy
from accounts import passwords as module

WEAK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


async def test_a_password_matches_its_own_hash_only() -> None:
    passwords = Passwords(WEAK)
    stored = await passwords.hash("correct horse")

    assert await passwords.matches(stored, "correct horse")
    assert not await passwords.matches(stored, "correct horse ")
    assert stored.startswith("$argon2id$")


async def test_nothing_matches_an_unknown_user() -> None:
    assert not await Passwords(WEAK).matches(None, "correct horse")


class Recording(PasswordHasher):
    """Counts the verifications, and how many of them run at once; waits for the test when told."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.go = threading.Event()
        self.go.set()
        self.verified: list[str] = []
        self.running = 0
        self.running_at_most = 0

    def verify(self, hash: str | bytes, password: str | bytes) -> bool:
        self.running += 1
        self.running_at_most = max(self.running_at_most, self.running)
        self.verified.append(str(hash))
        self.go.wait()
        self.running -= 1
        return super().verify(hash, password)


async def test_an_unknown_user_costs_one_verification_under_the_same_parameters() -> None:
    hasher = Recording()
    passwords = Passwords(hasher)

    await passwords.matches(None, "correct horse")

    [against] = hasher.verified
    assert not passwords.is_outdated(against)


async def test_only_a_few_are_hashed_at_once() -> None:
    hasher = Recording()
    passwords = Passwords(hasher)

    await asyncio.gather(*(passwords.matches(None, "correct horse") for _ in range(20)))

    assert len(hasher.verified) == 20
    assert hasher.running_at_most <= module.MAX_AT_ONCE


async def test_beyond_the_queue_a_login_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 5)
    hasher = Recording()
    passwords = Passwords(hasher)
    hasher.go.clear()
    waiting = [asyncio.create_task(passwords.matches(None, "correct horse")) for _ in range(5)]
    await asyncio.sleep(0)

    with pytest.raises(TooBusy):
        await passwords.matches(None, "correct horse")

    hasher.go.set()
    assert await asyncio.gather(*waiting) == [False] * 5
    assert not await passwords.matches(None, "correct horse")


async def test_a_hash_of_other_parameters_is_outdated_and_still_verifies() -> None:
    stored = await Passwords(WEAK).hash("correct horse")
    stronger = Passwords(PasswordHasher(time_cost=2, memory_cost=16, parallelism=1))

    assert stronger.is_outdated(stored)
    assert await stronger.matches(stored, "correct horse")
    assert not Passwords(WEAK).is_outdated(stored)
