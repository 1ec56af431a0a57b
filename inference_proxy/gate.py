"""The gate: authenticate → bound → price the bound → HOLD → backend → read usage → price it → SETTLE → last byte.

Nothing is forwarded before its hold is committed, and no answer is complete before its charge is. How a request ends
that does not come to its end, and what it costs then, is told in ``docs/endings.md``.
"""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

import aiohttp
import structlog
from aiohttp import web

from accounts import Authenticator
from inference_proxy.answers import AnswerStore, being_served
from inference_proxy.backends import Backend
from inference_proxy.client import ClientStream, DrainedStream, KeptStream
from inference_proxy.costs import cost_headers, has_output, output_tokens
from inference_proxy.holds import Endings, RequestHold
from inference_proxy.keyed import Keyed, KeyTaken
from inference_proxy.metrics import REQUESTS, TALLY, UNREADABLE_USAGE
from inference_proxy.models import ModelCatalog
from inference_proxy.operations import Operation
from inference_proxy.orders import Order, read_order
from inference_proxy.placing import Placed, Placer
from inference_proxy.prepared import Prepared
from inference_proxy.progress import Progress
from inference_proxy.refusals import rate_limit_headers, shutting_down
from inference_proxy.relay import Relay
from inference_proxy.transcript import has_words
from inference_proxy.upstream import BackendBroke, Upstream, whole_body
from inference_proxy.usage import UsageUnreadable, usage_object
from ledger import LedgerUnavailable
from ledger.errors import HoldAlreadyEnded
from pricing import UsageError
from wire import ApiError, read_body

#: What is left of requests when the time to finish is over takes this long at most: settling, and a last word.
FINISH_S = 10.0

#: Where a request keeps the client's end of its stream.
CLIENT = web.RequestKey("client", ClientStream)

Work = Coroutine[Any, Any, web.StreamResponse]

_log = structlog.get_logger(__name__)


class Gate:
    """Serves the metered operations of one process."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        models: ModelCatalog,
        placer: Placer,
        upstream: Upstream,
        answers: AnswerStore,
        endings: Endings,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        forwarded_headers: frozenset[str] = frozenset(),
    ) -> None:
        self._authenticator = authenticator
        self._models = models
        self._placer = placer
        self._upstream = upstream
        self._answers = answers
        self._endings = endings
        self._clock = clock
        self._monotonic = monotonic
        self._forwarded_headers = forwarded_headers
        self._is_draining = False
        self._at_work: set[asyncio.Task[Any]] = set()  # on requests, also when their client has gone

    async def serve(self, operation: Operation, request: web.Request) -> web.StreamResponse:
        """Answer one metered request. Raises ApiError, or what ``translate`` turns into one."""
        progress = Progress(self._monotonic)
        task = asyncio.current_task()
        assert task is not None  # a handler runs in one
        self._at_work.add(task)
        TALLY.in_flight += 1
        try:
            answer = await self._serve(operation, request, progress)
            if progress.outcome == "failed":
                progress.outcome = "served"
            return answer
        finally:
            self._at_work.discard(task)
            TALLY.in_flight -= 1
            TALLY.count(REQUESTS, operation.name, progress.outcome)
            TALLY.took(operation.name, progress.seconds)

    async def drain(self, *, within_s: float) -> None:
        """Finish what is being served, and refuse what comes. What takes longer than ``within_s`` ends as if its
        backend broke off: what was delivered is charged."""
        self._is_draining = True
        await self._until_quiet(within_s)
        self._upstream.close()
        await self._until_quiet(FINISH_S)
        await self._endings.drain(within_s=FINISH_S)

    async def _until_quiet(self, within_s: float) -> None:
        if self._at_work:
            await asyncio.wait(self._at_work, timeout=within_s)

    async def _serve(self, operation: Operation, request: web.Request, progress: Progress) -> web.StreamResponse:
        if self._is_draining:
            raise shutting_down()
        principal = await self._authenticator.authenticate_metered(request)
        body = await read_body(request, limit=operation.max_body)
        order = read_order(operation, principal, body, request)
        prepared = operation.prepare(body, self._models)
        if order.idempotency_key is not None:
            return await self._serve_once(order.idempotency_key, order, prepared, progress, request)
        work = self._pay_and_forward(order, prepared, progress, request)
        if prepared.stream and prepared.partial_usage == "drain":
            return await self._outlive(work, request)
        return await work

    async def _serve_once(
        self, key: str, order: Order, prepared: Prepared, progress: Progress, request: web.Request
    ) -> web.StreamResponse:
        keyed = Keyed(self._answers, order, key)

        async def serve() -> web.StreamResponse:
            try:
                given_before = await keyed.claim()
                if given_before is not None:
                    progress.outcome = "replayed"
                    return given_before
                return await self._pay_and_forward(order, prepared, progress, request, keyed)
            finally:
                if progress.outcome == "refused":
                    await keyed.release()

        # The answer is wanted also when its client has gone: that is what the key is for.
        return await self._outlive(serve(), request)

    async def _outlive(self, work: Work, request: web.Request) -> web.StreamResponse:
        """Do the work to its end, also when the client leaves meanwhile."""
        task = asyncio.create_task(work)
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if (client := request.get(CLIENT)) is not None:
                client.left()
            raise

    async def _pay_and_forward(
        self, order: Order, prepared: Prepared, progress: Progress, request: web.Request, keyed: Keyed | None = None
    ) -> web.StreamResponse:
        placed = await self._placer.place(order, prepared, progress)
        hold = placed.hold
        progress.outcome = "failed"
        try:
            if keyed is not None:
                await keyed.confirm()
            async with self._upstream.answer_of(
                order.operation, placed.prepared, self._headers_for_backend(order, request), progress
            ) as (backend, answer):
                if placed.prepared.stream and answer.content_type == "text/event-stream":
                    return await self._stream(order.operation, placed, backend, answer, request, keyed)
                if placed.prepared.slice_tokens is not None:  # it will not come in slices, so all of it must be held
                    await hold.extend(placed.prepared.box)
                body = await whole_body(answer)
            return await self._plain(order.operation, placed, backend, body, keyed)
        except KeyTaken as error:
            await hold.void("key_taken")
            raise being_served() from error
        except (ApiError, BackendBroke) as error:
            await hold.void("backend_failed")
            raise _as_api_error(error) from error
        except asyncio.CancelledError:  # nothing has reached the client, or the stream has seen to it
            self._endings.take_over(hold, lambda: hold.void("client_gone"))
            raise
        finally:
            if hold.needs_ending:
                self._endings.take_over(hold, hold.finish)

    async def _stream(
        self,
        operation: Operation,
        placed: Placed,
        backend: Backend,
        answer: aiohttp.ClientResponse,
        request: web.Request,
        keyed: Keyed | None,
    ) -> web.StreamResponse:
        headers = self._headers(placed)
        client = request[CLIENT] = self._client(request, headers, placed.prepared, keyed)
        relay = Relay(operation, placed.prepared, placed.hold, self._upstream, backend, answer, client)
        try:
            await relay.pass_on()
            committed = await relay.end_hold()
        except asyncio.CancelledError:
            relay.left()
            self._endings.take_over(placed.hold, relay.end_hold)
            raise
        except Exception as error:
            last_words = relay.fail(error)
        else:
            last_words = relay.say_goodbye(committed)
        try:
            await last_words
        finally:  # how it ends is decided, also when its client goes now
            if placed.hold.needs_ending:
                self._endings.take_over(placed.hold, placed.hold.finish)
        return client.response

    async def _plain(
        self, operation: Operation, placed: Placed, backend: Backend, body: bytes, keyed: Keyed | None
    ) -> web.Response:
        hold, headers = placed.hold, self._headers(placed)
        try:
            usage = placed.prepared.believed(operation.read_usage(usage_object(body)))
            hold.progress.answering()
            hold.progress.delivered(output_tokens(usage))
            if not has_output(usage):
                if has_words(body):
                    raise UsageUnreadable("an answer that is said to have no token has words")
                committed = await hold.void("empty")
            else:
                if keyed is not None:
                    await keyed.keep(body, "application/json", headers)
                committed = await hold.settle(usage, outcome="completed", backend=backend.name)
        except (UsageUnreadable, UsageError) as error:
            raise _unreadable(backend, hold, error) from error
        except HoldAlreadyEnded as error:
            raise LedgerUnavailable("the hold ended before its settlement") from error
        except LedgerUnavailable:  # it will not be served, so it must not be charged
            self._endings.take_over(hold, lambda: hold.void("not_settled"))
            raise
        return web.Response(body=body, content_type="application/json", headers={**headers, **cost_headers(committed)})

    def _client(
        self, request: web.Request, headers: dict[str, str], prepared: Prepared, keyed: Keyed | None
    ) -> ClientStream:
        if keyed is not None:
            return KeptStream(request, headers, keyed)
        if prepared.partial_usage == "drain":
            return DrainedStream(request, headers, drain_s=prepared.drain_s)
        return ClientStream(request, headers)

    def _headers_for_backend(self, order: Order, request: web.Request) -> dict[str, str]:
        headers = {name: value for name in self._forwarded_headers if (value := request.headers.get(name))}
        return {**headers, "x-request-id": order.request_id}

    def _headers(self, placed: Placed) -> dict[str, str]:
        assert placed.hold.placed is not None  # only what is placed is served
        headers = rate_limit_headers(placed.hold.placed.key, self._clock())
        headers["x-tollgate-hold-id"] = placed.hold.id
        if placed.clamped_to is not None:
            headers["x-tollgate-max-tokens"] = str(placed.clamped_to)
        return headers


def _as_api_error(error: ApiError | BackendBroke) -> ApiError:
    if isinstance(error, ApiError):
        return error
    return ApiError("backend_error", f"the backend broke off its answer; nothing was charged: {error}")


def _unreadable(backend: Backend, hold: RequestHold, error: Exception) -> ApiError:
    """An answer that cannot be priced is not served: it would be free."""
    TALLY.count(UNREADABLE_USAGE, backend.name)
    _log.error("usage.unreadable", backend=backend.name, hold_id=hold.id, error=str(error))
    return ApiError("backend_error", f"the backend does not say what the answer used; nothing was charged: {error}")
