"""The backends: which of them serves a model, how busy each is, and which are out.

A backend is out while its health check fails, and for a while after several requests in a row failed on it; then a
single request tries it again.
"""

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated

import aiohttp
import msgspec
import structlog

from inference_proxy.metrics import BACKEND_FAILURES, TALLY
from wire import ApiError

#: How often each backend's health is asked for, and how long it may take to answer.
CHECK_EVERY_S = 2.0
CHECK_TIMEOUT_S = 2.0
#: After this many failed requests in a row a backend is left alone for OPEN_FOR_S.
FAILURES_TO_OPEN = 3
OPEN_FOR_S = 5.0

_log = structlog.get_logger(__name__)


class BackendConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One OpenAI-compatible server."""

    name: str
    url: Annotated[str, msgspec.Meta(pattern="^https?://")]  # without /v1
    models: list[str]  # ids of the models for sale that it serves
    api_key_env: str | None = None  # the environment variable with the key that it wants
    silence_timeout_s: Annotated[float, msgspec.Meta(gt=0)] = 120.0  # before the first byte, and between two


class Backend:
    """One backend and what is known of it now."""

    def __init__(self, config: BackendConfig) -> None:
        self.config = config
        self.name = config.name
        self.url = config.url.rstrip("/")
        self.in_flight = 0
        self.is_healthy = True
        self._failures = 0
        self._open_until = 0.0
        self.headers = {"content-type": "application/json"}
        if config.api_key_env is not None:
            self.headers["authorization"] = f"Bearer {os.environ[config.api_key_env]}"

    def is_available(self, now: float) -> bool:
        """Whether it may be tried. ``now`` is in monotonic seconds."""
        return self.is_healthy and now >= self._open_until

    def chosen(self, now: float) -> None:
        """Somebody tries it. After failures in a row nobody else does until the outcome is known, or as long again."""
        if self._failures >= FAILURES_TO_OPEN:
            self._open_until = now + OPEN_FOR_S

    def succeeded(self) -> None:
        self._failures = 0
        self._open_until = 0.0

    def failed(self, now: float) -> None:
        """Count a failed attempt; after several in a row nothing is sent here for a while, then one at a time."""
        TALLY.count(BACKEND_FAILURES, self.name)
        self._failures += 1
        if self._failures >= FAILURES_TO_OPEN:
            self._open_until = now + OPEN_FOR_S
            _log.warning("backend.circuit_opened", backend=self.name, failures=self._failures)


class BackendPool:
    """All backends by the models they serve."""

    def __init__(
        self, configs: Iterable[BackendConfig], session: aiohttp.ClientSession, *, monotonic: Callable[[], float]
    ) -> None:
        self.session = session
        self.monotonic = monotonic
        self.backends = [Backend(config) for config in configs]
        self._by_model: dict[str, list[Backend]] = {}
        for backend in self.backends:
            for model in backend.config.models:
                self._by_model.setdefault(model, []).append(backend)

    def serves(self, model: str) -> bool:
        """Whether any backend is there for the model now."""
        now = self.monotonic()
        return any(backend.is_available(now) for backend in self._by_model.get(model, ()))

    def choose(self, model: str, *, tried: Sequence[Backend] = ()) -> Backend:
        """The least busy backend for the model that was not tried yet. Raises ApiError no_backend."""
        now = self.monotonic()
        candidates = [b for b in self._by_model.get(model, ()) if b not in tried and b.is_available(now)]
        if not candidates:
            raise no_backend(model)
        backend = min(candidates, key=lambda backend: backend.in_flight)
        backend.chosen(now)
        return backend

    async def watch(self) -> None:
        """Check every backend's health until cancelled."""
        while True:
            await asyncio.gather(*(self._check(backend) for backend in self.backends))
            await asyncio.sleep(CHECK_EVERY_S)

    async def _check(self, backend: Backend) -> None:
        timeout = aiohttp.ClientTimeout(total=CHECK_TIMEOUT_S)
        try:
            async with self.session.get(f"{backend.url}/health", headers=backend.headers, timeout=timeout) as answer:
                is_healthy = answer.status < 500
        except (aiohttp.ClientError, OSError, TimeoutError):
            is_healthy = False
        if is_healthy != backend.is_healthy:
            _log.warning("backend.health_changed", backend=backend.name, is_healthy=is_healthy)
        backend.is_healthy = is_healthy


def no_backend(model: str) -> ApiError:
    """The refusal when nothing can serve the model now; worth another try soon."""
    return ApiError(
        "no_backend",
        f"no backend serves {model!r} at the moment",
        headers={"retry-after": "2", "retry-after-ms": "2000", "x-should-retry": "true"},
    )
