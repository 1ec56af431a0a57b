"""What has happened to a request so far, as the event that ends its hold says it. No money is in it."""

from collections.abc import Callable
from typing import Any

import msgspec


class Attempt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One backend that was asked. However many there were, one charge follows."""

    backend: str
    outcome: str  # answered, refused, unreachable, broke, timeout, or cut_off: the request ended before it answered
    took_ms: int  # until the headers of its answer, or until it was given up
    status: int | None = None  # of its answer


class Served(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a request was served."""

    attempts: tuple[Attempt, ...] = ()
    delivered_tokens: int = 0  # of the answer, as the backend counts, handed over to the client's connection
    generated_tokens: int = 0  # as far as the backend told
    first_byte_ms: int | None = None  # from the request to the first byte of its answer; None = there was none
    took_ms: int = 0  # from the request to the end of its hold


class Progress:
    """Of one request, while it is served."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.outcome = "refused"  # as it is counted
        self._delivered_tokens = 0
        self._generated_tokens = 0
        self._attempts: list[Attempt] = []
        self._first_byte_ms: int | None = None
        self._monotonic = monotonic
        self._started = monotonic()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return self._monotonic() - self._started

    def tried(self, backend: str, outcome: str, *, since: float, status: int | None = None) -> None:
        """A backend was asked at ``since`` (monotonic seconds), with this outcome."""
        took_ms = round((self._monotonic() - since) * 1000)
        self._attempts.append(Attempt(backend=backend, outcome=outcome, took_ms=took_ms, status=status))

    def answering(self) -> None:
        """A part of the answer goes out."""
        if self._first_byte_ms is None:
            self._first_byte_ms = round(self.seconds * 1000)

    def generated(self, tokens: int | None) -> None:
        """So long is the answer by now, as far as its backend says."""
        self._generated_tokens = max(self._generated_tokens, tokens or 0)

    def delivered(self, tokens: int) -> None:
        """So much of the answer is in the client's hands."""
        self._delivered_tokens = tokens
        self.generated(tokens)

    @property
    def served(self) -> dict[str, Any]:
        """All of it, as the ledger stores it: a ``Served``."""
        served = Served(
            attempts=tuple(self._attempts),
            delivered_tokens=self._delivered_tokens,
            generated_tokens=self._generated_tokens,
            first_byte_ms=self._first_byte_ms,
            took_ms=round(self.seconds * 1000),
        )
        built: dict[str, Any] = msgspec.to_builtins(served)
        return built
