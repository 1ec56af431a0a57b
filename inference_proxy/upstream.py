"""Sending a prepared request to a backend, and to the next one as long as nothing of an answer has arrived."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import structlog
from aiohttp import ClientTimeout

from inference_proxy.backends import Backend, BackendPool, no_backend
from inference_proxy.operations import Operation
from inference_proxy.prepared import Prepared
from inference_proxy.progress import Progress
from inference_proxy.refusals import shutting_down
from wire import ApiError

#: Backends tried for one request. More would only spread the trouble of a request that breaks backends.
MAX_ATTEMPTS = 3
#: A plain answer above this is not one that a backend of ours gives.
MAX_ANSWER = 64 * 1024 * 1024
CONNECT_TIMEOUT_S = 5.0
#: What an attempt gets whose time is over; to aiohttp no time means for ever.
SOONEST_S = 0.001

#: What a backend refuses because of what the client sent; any other refusal is between it and us.
_BAD_REQUEST_STATUSES = frozenset({400, 413, 422})
_log = structlog.get_logger(__name__)


class BackendBroke(Exception):
    """The backend failed in the middle of its answer."""


class Upstream:
    """Sends the requests of one process to its backends."""

    def __init__(self, pool: BackendPool) -> None:
        self.pool = pool
        self.is_closed = False
        self._asking: set[asyncio.Timeout] = set()
        self._answers: set[aiohttp.ClientResponse] = set()

    def close(self) -> None:
        """Break off every answer that is under way, as if its backend did, and begin no other."""
        self.is_closed = True
        now = asyncio.get_running_loop().time()
        for patience in self._asking:
            patience.reschedule(now)
        for answer in self._answers:
            answer.content.set_exception(aiohttp.ClientConnectionError("the server stops"))

    @asynccontextmanager
    async def answer_of(
        self, operation: Operation, prepared: Prepared, headers: dict[str, str], progress: Progress
    ) -> AsyncIterator[tuple[Backend, aiohttp.ClientResponse]]:
        """The backend's answer, headers read and status 200. Leaving the context early aborts the generation.

        Raises ApiError: no_backend, backend_error or backend_timeout when no backend answered, invalid_request with
        the backend's own words when it refused the request itself.
        """
        tried: list[Backend] = []
        while True:
            backend = self._next(prepared.model, tried)
            tried.append(backend)
            backend.in_flight += 1
            try:
                answer = await self._attempt(backend, operation, prepared, headers, progress)
                if answer is None:
                    continue
                self._answers.add(answer)
                try:
                    yield backend, answer
                finally:
                    self._answers.discard(answer)
                    # A connection is used again only when its answer was read to the end; any other is closed, which
                    # is how a backend hears that nobody waits.
                    answer.release() if answer.content.at_eof() else answer.close()
                return
            finally:
                backend.in_flight -= 1

    def _next(self, model: str, tried: list[Backend]) -> Backend:
        if self.is_closed:
            raise shutting_down()
        if len(tried) >= MAX_ATTEMPTS:
            raise ApiError("backend_error", f"{len(tried)} backends failed before they answered")
        try:
            return self.pool.choose(model, tried=tried)
        except ApiError as error:
            if tried:
                raise ApiError("backend_error", f"the backend failed before it answered: {tried[-1].name}") from error
            raise no_backend(model) from error

    async def _attempt(
        self, backend: Backend, operation: Operation, prepared: Prepared, headers: dict[str, str], progress: Progress
    ) -> aiohttp.ClientResponse | None:
        """The answer, or None when another backend may be tried."""
        since = self.pool.monotonic()
        outcome, status = "cut_off", None
        try:
            answer = await self._post(
                backend, operation, prepared, headers, left_s=operation.limit_s - progress.seconds
            )
            outcome, status = "refused", answer.status
            if status == 200:
                outcome = "answered"
                backend.succeeded()
                return answer
            text = await _error_text(answer)
            if status in _BAD_REQUEST_STATUSES:
                raise ApiError("invalid_request", text)
            _log.warning("backend.refused", backend=backend.name, status=status, error=text)
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
            outcome = "unreachable"
            _log.warning("backend.unreachable", backend=backend.name, error=repr(error))
        except TimeoutError as error:  # it may be at work on it still: another try would be the same work again
            outcome = "timeout"
            if self.is_closed:
                raise shutting_down() from error
            if prepared.stream:  # the headers of a plain answer may come with its end, however long that takes
                backend.failed(self.pool.monotonic())
            raise ApiError("backend_timeout", "the backend did not answer in time") from error
        except (aiohttp.ClientError, OSError) as error:
            outcome = "broke"
            _log.warning("backend.broke", backend=backend.name, error=repr(error))
        finally:
            progress.tried(backend.name, outcome, since=since, status=status)
        backend.failed(self.pool.monotonic())
        return None

    async def _post(
        self, backend: Backend, operation: Operation, prepared: Prepared, headers: dict[str, str], *, left_s: float
    ) -> aiohttp.ClientResponse:
        timeout = ClientTimeout(
            total=max(left_s, SOONEST_S),
            sock_connect=CONNECT_TIMEOUT_S,
            sock_read=backend.config.silence_timeout_s,
        )
        async with asyncio.timeout(None) as patience:
            self._asking.add(patience)
            try:
                return await self.pool.session.post(
                    backend.url + operation.path,
                    data=prepared.body,
                    headers={**backend.headers, **headers},
                    timeout=timeout,
                    allow_redirects=False,  # nobody but the configured backend gets to see a request
                )
            finally:
                self._asking.discard(patience)


async def _error_text(answer: aiohttp.ClientResponse) -> str:
    """What a backend says of its refusal: the message of an OpenAI error body, or the beginning of any other."""
    try:
        body = await answer.json(content_type=None)
        return str(body.get("message") or body["error"]["message"])[:2000]
    except (aiohttp.ClientError, ValueError, KeyError, TypeError, AttributeError, TimeoutError, OSError):
        return f"the backend answered {answer.status}"
    finally:
        answer.release()


async def whole_body(answer: aiohttp.ClientResponse) -> bytes:
    """A plain answer to its end. Raises BackendBroke when it breaks off or is above ``MAX_ANSWER``."""
    chunks = []
    size = 0
    try:
        async for chunk in answer.content.iter_any():
            size += len(chunk)
            if size > MAX_ANSWER:
                raise BackendBroke("its answer is too large")
            chunks.append(chunk)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise BackendBroke(repr(error)) from error
    return b"".join(chunks)
