"""Sending one decided answer, plain or streamed, at its pace, and breaking it off where a fault wants that."""

import asyncio
from typing import Final

import msgspec

from simulated_backend.chat import ChatRequest, Stream, StreamOptions, error_body, plain_answer
from simulated_backend.connection import Connection
from simulated_backend.faults import Cut, Faults
from simulated_backend.generation import Generation, text_of
from simulated_backend.journal import Exchange

#: Without latency a stream is written this many steps at a time; in between we look whether anybody still reads.
STEPS_PER_WRITE: Final = 64
#: A silence is given up in the end, so that a forgotten test does not keep a connection for ever.
SILENCE_LIMIT_S: Final = 3600.0
#: How many bytes more than there are a wrong content-length announces.
WRONG_LENGTH_BY: Final = 100

_ENGINE_DIED: Final = error_body(500, "The engine died while generating.", kind="InternalServerError")
_CONTENT_MARK: Final = b'"content":"'
_MALFORMED_EVENT: Final = (
    b'data: {"id":"chatcmpl-broken","object":"chat.completion.chunk","choices":[{"index":0,"de\n\n'
)


class Job(msgspec.Struct, frozen=True):
    """A request that will be answered, and all that is known about the answer."""

    connection: Connection
    exchange: Exchange
    chat: ChatRequest
    generation: Generation
    faults: Faults
    created: int  # seconds since 1970
    first_token_s: float  # from the request to the beginning of the first token
    token_s: float  # that each token takes, the first one too

    @property
    def answer_id(self) -> str:
        """As vLLM makes it, from the request's id."""
        return f"chatcmpl-{self.exchange.request_id}"

    @property
    def headers(self) -> dict[bytes, bytes]:
        """What each answer carries."""
        return {b"x-request-id": self.exchange.request_id.encode()}

    @property
    def longest(self) -> int:
        """Tokens of the longest choice, and so the steps that the engine takes."""
        return max(choice.tokens for choice in self.generation.choices)

    @property
    def is_immediate(self) -> bool:
        """Whether the answer needs no waiting and no breaking."""
        return not (self.first_token_s or self.token_s or self.faults.cut() or self.faults.body != "normal")


def send_plain(job: Job) -> None:
    """Write the whole answer; while the connection is not drained after that, ``wait_until_sent`` is still to come."""
    exchange = job.exchange
    exchange.status = 200
    exchange.steps = job.longest
    exchange.completion_tokens = exchange.tokens_told = job.generation.completion_tokens
    body = _plain_body(job)
    exchange.wrote(body)
    job.connection.send(200, body, headers=job.headers)
    if job.connection.is_drained:
        exchange.tokens_written = exchange.tokens_told


async def wait_until_sent(job: Job) -> None:
    """Wait until the operating system has taken all that was written of the tokens told so far."""
    await job.connection.drained()
    job.exchange.tokens_written = job.exchange.tokens_told


async def send_plain_at_pace(job: Job) -> None:
    """Write the answer when its last token would be ready, broken as its faults want it."""
    await _generate_silently(job)
    cut = job.faults.cut()
    if cut and cut.after <= job.exchange.completion_tokens:
        await _send_plain_part(job, cut)
        return
    job.exchange.status = 200
    body = _plain_body(job)
    if job.faults.body == "malformed":
        body = body[: len(body) // 2]
    job.exchange.tokens_told = job.exchange.completion_tokens
    job.exchange.wrote(body)
    length = len(body) + (WRONG_LENGTH_BY if job.faults.body == "wrong_length" else 0)
    job.connection.send(200, body, headers=job.headers, announced_length=length)
    await wait_until_sent(job)
    if length != len(body):
        job.exchange.outcome = "cut"
        job.connection.close()


async def _send_plain_part(job: Job, cut: Cut) -> None:
    """Write what comes before the cut: the answer up to a token of its first choice, or an error in place of it."""
    exchange, connection = job.exchange, job.connection
    if cut.kind == "error":
        exchange.status = 500
        exchange.outcome = "cut"
        exchange.wrote(_ENGINE_DIED)
        connection.send(500, _ENGINE_DIED, headers=job.headers)
        return
    exchange.status = 200
    body = _plain_body(job)
    first = job.generation.choices[0]
    tokens = min(cut.after, first.tokens)
    end = body.index(_CONTENT_MARK) + len(_CONTENT_MARK) + len(text_of(msgspec.structs.replace(first, tokens=tokens)))
    exchange.wrote(body[:end])
    connection.send(200, body[:end], headers=job.headers, announced_length=len(body))
    await connection.drained()
    exchange.tokens_written = tokens
    await _break_off(job, cut)


def _plain_body(job: Job) -> bytes:
    return plain_answer(job.answer_id, job.created, job.chat.model, job.generation, job.faults)


async def _generate_silently(job: Job) -> None:
    """Let the time of all tokens pass; if the client leaves meanwhile, those of the time passed were generated."""
    loop = asyncio.get_running_loop()
    first_token_at = loop.time() + job.first_token_s
    try:
        await asyncio.sleep(job.first_token_s + job.longest * job.token_s)
        steps = job.longest
    except asyncio.CancelledError:
        steps = int(max(0.0, loop.time() - first_token_at) / job.token_s) if job.token_s else 0
        raise
    finally:
        job.exchange.steps = steps
        job.exchange.completion_tokens = sum(min(choice.tokens, steps) for choice in job.generation.choices)


async def send_stream(job: Job) -> None:
    """Write the events of the answer one token after the other."""
    connection, exchange, faults = job.connection, job.exchange, job.faults
    exchange.status = 200
    connection.start_stream(job.headers)
    if job.first_token_s:
        await connection.drained()
        await asyncio.sleep(job.first_token_s)
    options = job.chat.stream_options or StreamOptions()
    stream = Stream(job.answer_id, job.created, job.chat.model, job.generation, options, faults)
    _send_events(job, stream.opening() + (_MALFORMED_EVENT if faults.body == "malformed" else b""))
    cut = faults.cut()
    await _send_steps(job, stream, cut)
    if cut and exchange.completion_tokens >= cut.after:
        await wait_until_sent(job)
        await _break_off(job, cut)
        return
    _send_events(job, stream.closing())
    if faults.body == "wrong_length":
        exchange.outcome = "cut"
        await wait_until_sent(job)
        connection.close()
        return
    connection.end_stream()
    await wait_until_sent(job)


async def _send_steps(job: Job, stream: Stream, cut: Cut | None) -> None:
    """Generate until the end or the cut. The latest steps are left collected, to go out with what follows."""
    exchange = job.exchange
    pending: list[bytes] = []
    for step in stream.steps():
        if cut and exchange.completion_tokens >= cut.after:
            break
        if job.token_s:
            await wait_until_sent(job)
            await asyncio.sleep(job.token_s)
        elif len(pending) >= STEPS_PER_WRITE:
            _send_events(job, b"".join(pending))
            pending.clear()
            await wait_until_sent(job)
            await asyncio.sleep(0)  # a client that left is noticed only when the loop turns
        exchange.steps += 1
        exchange.completion_tokens += step.tokens
        exchange.tokens_told += step.told
        if not job.token_s:
            pending.append(step.events)
        else:
            _send_events(job, step.events)
    if pending:
        _send_events(job, b"".join(pending))


def _send_events(job: Job, events: bytes) -> None:
    if events:  # an empty chunk would end the stream
        job.exchange.wrote(events)
        job.connection.send_chunk(events)


async def _break_off(job: Job, cut: Cut) -> None:
    match cut.kind:
        case "silence":
            await asyncio.sleep(SILENCE_LIMIT_S)
        case "error" if job.chat.stream:
            _send_events(job, b"data: %b\n\ndata: [DONE]\n\n" % _ENGINE_DIED)
            job.connection.end_stream()
            await job.connection.drained()
            job.exchange.outcome = "cut"
            return
    job.exchange.outcome = "cut"
    job.connection.close()
