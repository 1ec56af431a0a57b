"""One chat completion from its request to its line in the journal."""

import asyncio
import re
import time
from collections.abc import Coroutine
from functools import partial
from itertools import count
from typing import Any, Final

import msgspec

from simulated_backend.answering import Job, send_plain, send_plain_at_pace, send_stream, wait_until_sent
from simulated_backend.chat import Refusal, check, decode, tokens_left
from simulated_backend.connection import Connection, Request
from simulated_backend.faults import BadWish, FaultBoard, Faults
from simulated_backend.generation import PromptCache, generate, tokenize
from simulated_backend.journal import Exchange, Journal

#: Ids that can stand in a header and in JSON as they are; any other is replaced by one of ours.
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:\-]{1,128}")

Work = Coroutine[Any, Any, None] | None


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a healthy backend is set up."""

    models: tuple[str, ...] = ("simulated-small", "simulated-large")
    token_latency_ms: float = 2.0
    first_token_latency_ms: float = 0.0
    context_length: int = 32_768  # tokens of prompt and answer together


class ChatService:
    """Serves chat completions; ``begin`` is all there is to call. Each request gets exactly one line in the journal."""

    def __init__(self, options: Options, board: FaultBoard, journal: Journal) -> None:
        self._options = options
        self._board = board
        self._journal = journal
        self._cache = PromptCache()
        self._ids = count(1)

    def begin(self, connection: Connection, request: Request) -> None:
        """Serve a request: at once where nothing has to be waited for."""
        request_id = request.headers.get("x-request-id", "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = f"sim-{next(self._ids)}"
        exchange = Exchange(request_id)
        work = self._work(connection, request, exchange)
        if work is None:
            self._journal.end(exchange)
        else:
            self._journal.begin(exchange)
            connection.serve_on(work, partial(self._ended, exchange))

    def _ended(self, exchange: Exchange, task: asyncio.Task[None]) -> None:
        if exchange.outcome == "running":
            exchange.outcome = "aborted" if task.cancelled() else "finished"
        self._journal.end(exchange)

    def _work(self, connection: Connection, request: Request, exchange: Exchange) -> Work:
        """What there is to wait for before the request is served; None when it is served now."""
        try:
            faults = self._board.for_request(request.headers.get("x-simulate"))
        except BadWish as bad:
            _refuse(connection, exchange, Refusal(400, f"x-simulate: {bad}", kind="BadWish"))
            return None
        if faults.hang:
            return self._hang(connection, request, exchange, faults)
        return self._respond(connection, request, exchange, faults)

    async def _hang(self, connection: Connection, request: Request, exchange: Exchange, faults: Faults) -> None:
        await asyncio.sleep(faults.hang)
        work = self._respond(connection, request, exchange, faults)
        if work is not None:
            await work

    def _respond(self, connection: Connection, request: Request, exchange: Exchange, faults: Faults) -> Work:
        if faults.close_before_headers:
            exchange.outcome = "cut"
            connection.close()
            return None
        try:
            if faults.status is not None:
                raise Refusal(faults.status, "This backend was told to refuse.", kind="SimulatedFault")
            job = self._job(connection, request, exchange, faults)
        except Refusal as refusal:
            _refuse(connection, exchange, refusal, retry_after_s=faults.retry_after)
            return None
        if job.chat.stream:
            return send_stream(job)
        if not job.is_immediate:
            return send_plain_at_pace(job)
        send_plain(job)
        if not connection.is_drained:
            return wait_until_sent(job)
        exchange.outcome = "finished"
        return None

    def _job(self, connection: Connection, request: Request, exchange: Exchange, faults: Faults) -> Job:
        options = self._options
        chat = decode(request.body)
        exchange.model, exchange.stream = chat.model, bool(chat.stream)
        check(chat, options.models)
        prompt = tokenize(chat.model, chat.messages, chat.tool_definitions)
        max_tokens = tokens_left(chat, prompt_tokens=prompt.tokens, context_length=options.context_length)
        generation = generate(
            prompt,
            cached_tokens=self._cache.lookup(prompt),
            choices=chat.n or 1,
            min_tokens=max_tokens if chat.ignore_eos else chat.min_tokens or 0,
            max_tokens=max_tokens,
            faults=faults,
        )
        exchange.prompt_tokens, exchange.cached_tokens = generation.prompt_tokens, generation.cached_tokens
        exchange.generation = generation
        return Job(
            connection=connection,
            exchange=exchange,
            chat=chat,
            generation=generation,
            faults=faults,
            created=int(time.time()),
            first_token_s=_seconds(faults.first_token_latency_ms, options.first_token_latency_ms),
            token_s=_seconds(faults.token_latency_ms, options.token_latency_ms),
        )


def _refuse(connection: Connection, exchange: Exchange, refusal: Refusal, *, retry_after_s: int | None = None) -> None:
    headers = {b"x-request-id": exchange.request_id.encode()}
    if retry_after_s is not None:
        headers[b"retry-after"] = b"%d" % retry_after_s
    exchange.status = refusal.status
    exchange.outcome = "refused"
    exchange.wrote(refusal.body)
    connection.send(refusal.status, refusal.body, headers=headers)


def _seconds(wished_ms: float | None, usual_ms: float) -> float:
    return (usual_ms if wished_ms is None else wished_ms) / 1000
