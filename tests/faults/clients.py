"""The load: clients of all manners over real sockets, and what each of them saw of its answer.

What is asked, and how, follows from the seed; when it is asked follows from the answers.
"""

import asyncio
import hashlib
import random
import re
import time
from contextlib import suppress
from decimal import Decimal
from typing import Any, Literal

import aiohttp
import msgspec

from tests.acceptance.client import Http
from tests.acceptance.customers import CHAT, wishes
from tests.faults.furnishing import MODELS, Payer
from tests.faults.installation import TOKEN_LATENCY_MS

Manner = Literal["stays", "leaves_before_the_first_byte", "leaves_midway", "leaves_before_done", "reads_slowly"]
Repeat = Literal["never", "at_once", "afterwards", "late", "with_another_body"]

#: Requests of one client are numbered from its own ten million, each of their repetitions half a million later.
NUMBERS_OF_A_CLIENT = 10_000_000
REPEATED = 500_000
#: Who is told that the first request is still being served asks again, so often and after so long.
TRIES = 10
TRIES_AFTER_S = 1.0
#: A client waits this long before it asks again after a refusal or a lost connection.
BACKOFF_S = 0.2
#: Whatever happens to a request, its client has given it up after this long.
PATIENCE_S = 45.0

_TOKEN = re.compile(rb'"delta":\{"content":"[^"]')
_COST = re.compile(rb"^: x-tollgate-cost-cents=(\S+)$", re.MULTILINE)
_decode = msgspec.json.decode


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One request before it is sent."""

    number: int
    payer: Payer
    model: str
    stream: bool
    include_usage: bool
    choices: int
    max_tokens: int | None
    simulate: dict[str, Any]  # what the backend is to do
    manner: Manner
    after: float  # seconds, tokens, or seconds for each piece, as the manner has it
    text: str
    retry_count: int = 0  # what the client says of its tries, as the OpenAI SDKs do
    idempotency_key: str | None = None

    @property
    def answerable_after_s(self) -> float:
        """From when the backend gets it to when the first of its tokens can be written, at the earliest."""
        latency_ms = self.simulate.get("first_token_latency_ms", 0) + TOKEN_LATENCY_MS
        return float(self.simulate.get("hang", 0) + latency_ms / 1000)

    def body(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": "user", "content": self.text}],
        }
        if self.choices > 1:
            body["n"] = self.choices
        if self.max_tokens is not None:
            body["max_tokens"] = self.max_tokens
        if self.stream:
            body["stream"] = True
            if self.include_usage:
                body["stream_options"] = {"include_usage": True}
        return body

    def headers(self) -> dict[str, str]:
        headers = {"Authorization": f"Bearer {self.payer.secret}", "x-load-number": str(self.number)}
        if self.simulate:
            headers["x-simulate"] = wishes(**self.simulate)
        if self.retry_count:
            headers["x-stainless-retry-count"] = str(self.retry_count)
        if self.idempotency_key is not None:
            headers["Idempotency-Key"] = self.idempotency_key
        return headers


class Seen(msgspec.Struct, kw_only=True):
    """What a client saw of the answer to one request. Times are seconds since 1970."""

    ask: Ask
    started_at: float
    ended_at: float = 0.0
    status: int = 0  # 0: no answer began
    request_id: str | None = None
    hold_id: str | None = None
    arrivals: list[float] = []  # of each token of content that was received
    said: str = ""  # SHA-256 over the body, without comment lines
    is_whole: bool = False
    is_curtailed: bool = False  # it ended early, because there was no money for more
    error: str | None = None  # its code, in place of an answer or of its end
    is_unreadable: bool = False  # it is not of the form that it says
    usage: dict[str, Any] | None = None
    cost_cents: Decimal | None = None  # as the answer says
    left: bool = False  # the client hung up
    trouble: str = ""  # what became of the connection

    @property
    def tokens(self) -> int:
        """Of content, received."""
        return len(self.arrivals)

    def tokens_until(self, at: float) -> int:
        """Of these, so many by then."""
        return sum(arrived <= at for arrived in self.arrivals)


def draw_ask(chance: random.Random, number: int, payers: list[Payer], *, idempotency: bool) -> tuple[Ask, Repeat]:
    """The next request of a client, and whether it is sent once more."""
    stream = chance.random() < 0.65
    manner, after = _draw_manner(chance, stream=stream)
    repeat: Repeat = "never"
    if idempotency and manner == "stays" and chance.random() < 0.3:
        repeat = chance.choice(("at_once", "afterwards", "late", "with_another_body"))
    simulate = _draw_simulation(chance)
    # Who counts each choice on its own chunks does not count all of them on one.
    choices = 2 if chance.random() < 0.2 and simulate.get("usage") != "with_finish" else 1
    ask = Ask(
        number=number,
        payer=chance.choice(payers),
        model=chance.choice(MODELS),
        stream=stream,
        include_usage=chance.random() < 0.5,
        choices=choices,
        max_tokens=chance.choice((None, None, None, 20, 200)),
        simulate=simulate,
        manner=manner,
        after=after,
        text=f"Say something about ledgers, {number:012}.",
        retry_count=chance.choice((0, 0, 0, 2)),
        idempotency_key=f"ik-{number}-{chance.getrandbits(64):016x}" if repeat != "never" else None,
    )
    return ask, repeat


def _draw_manner(chance: random.Random, *, stream: bool) -> tuple[Manner, float]:
    draw = chance.random()
    if draw < 0.1:
        return "leaves_before_the_first_byte", chance.choice((0.02, 0.1, 0.3, 0.6))
    if stream and draw < 0.2:
        return "leaves_midway", chance.randrange(1, 15)
    if stream and draw < 0.25:
        return "leaves_before_done", 0
    if stream and draw < 0.32:
        return "reads_slowly", chance.choice((0.02, 0.05))
    return "stays", 0


def _draw_simulation(chance: random.Random) -> dict[str, Any]:
    """Of a backend that mostly works."""
    simulate: dict[str, Any] = {"tokens": chance.choice((1, 5, 5, 20, 20, 20, 40, 40, 40, 400))}
    draw = chance.random()
    if draw < 0.7:
        return simulate
    if draw < 0.76:
        return simulate | {"first_token_latency_ms": chance.choice((300, 1000, 2500))}
    return simulate | chance.choice(
        (
            {"status": chance.choice((400, 429, 500, 503))},
            {"close_before_headers": "true"},
            {"close_after": chance.choice((0, 3, 10))},
            {"error_after": chance.choice((0, 3, 10))},
            {"silent_after": chance.choice((0, 3, 10))},
            {"hang": chance.choice((1, 4, 20))},
            {"body": chance.choice(("malformed", "wrong_length"))},
            {"usage": chance.choice(("no_cached_details", "with_finish", "every_chunk", "twice", "after_done"))},
            {"overrun": 60},
            {"cached": 8},
        )
    )


class Load:
    """Clients that ask one question after the other until told to stop."""

    def __init__(self, url: str, payers: list[Payer], *, seed: int, clients: int, idempotency: bool) -> None:
        self.seen: list[Seen] = []
        self._http = Http(url)
        self._payers = payers
        self._seed = seed
        self._idempotency = idempotency
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[Any]] = [asyncio.create_task(self._client(number)) for number in range(clients)]
        self._bursts = 0

    def burst(self, size: int) -> None:
        """So many requests more, all at once, each of a client that comes for it only."""
        self._bursts += 1
        for one in range(size):
            chance = random.Random(f"{self._seed}/burst/{self._bursts}/{one}")
            number = (1000 * self._bursts + one) * NUMBERS_OF_A_CLIENT
            ask, _ = draw_ask(chance, number, self._payers, idempotency=False)
            self._tasks.append(asyncio.create_task(self._send(ask)))

    async def stop(self) -> None:
        """Let every client finish the request that it is at."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)

    async def close(self) -> None:
        """Break off what is left."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._http.close()

    async def _client(self, client: int) -> None:
        chance = random.Random(f"{self._seed}/client/{client}")
        late: list[Ask] = []
        number = client * NUMBERS_OF_A_CLIENT
        while not self._stopping.is_set():
            number += 1
            ask, repeat = draw_ask(chance, number, self._payers, idempotency=self._idempotency)
            if repeat == "at_once":
                await asyncio.gather(self._send(ask), self._repeat(ask))
            else:
                await self._send(ask)
            if repeat == "afterwards":
                await self._repeat(ask)
            elif repeat == "with_another_body":
                await self._repeat(msgspec.structs.replace(ask, text="Say something else."))
            elif repeat == "late":
                late.append(ask)
            elif late:
                await self._repeat(late.pop(0))
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), self._pause(chance))

    def _pause(self, chance: random.Random) -> float:
        fortunate = not self.seen or self.seen[-1].status == 200
        return chance.random() * 0.3 + (0 if fortunate else BACKOFF_S)

    async def _repeat(self, ask: Ask) -> None:
        for tries in range(1, TRIES + 1):
            seen = await self._send(msgspec.structs.replace(ask, number=ask.number + tries * REPEATED))
            if seen.error != "conflict" or self._stopping.is_set():
                return
            await asyncio.sleep(TRIES_AFTER_S)

    async def _send(self, ask: Ask) -> Seen:
        seen = Seen(ask=ask, started_at=time.time())
        limit = ask.after if ask.manner == "leaves_before_the_first_byte" else PATIENCE_S
        try:
            async with asyncio.timeout(limit):
                await self._read(ask, seen)
        except TimeoutError:
            seen.left = True
        except (aiohttp.ClientError, OSError) as error:
            seen.trouble = repr(error)
        seen.ended_at = time.time()
        self.seen.append(seen)
        return seen

    async def _read(self, ask: Ask, seen: Seen) -> None:
        async with self._http.open("POST", CHAT, ask.body(), headers=ask.headers()) as response:
            seen.status = response.status
            seen.request_id = response.headers.get("x-request-id")
            seen.hold_id = response.headers.get("x-tollgate-hold-id")
            if response.content_type == "text/event-stream":
                await _read_stream(response, ask, seen)
            else:
                _read_plain(await response.read(), response, seen)


def _read_plain(body: bytes, response: aiohttp.ClientResponse, seen: Seen) -> None:
    try:
        answer = _decode(body)
    except msgspec.DecodeError:
        seen.is_unreadable, seen.trouble = True, f"not JSON: {body[:100]!r}"
        return
    if response.status != 200:
        seen.error = answer["error"]["code"]
        return
    seen.is_whole = True
    seen.said = hashlib.sha256(body).hexdigest()
    seen.usage = answer["usage"]
    seen.arrivals = [time.time()] * answer["usage"]["completion_tokens"]
    cost = response.headers.get("x-tollgate-cost-cents")
    seen.cost_cents = None if cost is None else Decimal(cost)


async def _read_stream(response: aiohttp.ClientResponse, ask: Ask, seen: Seen) -> None:
    said = hashlib.sha256()
    async for line in response.content:
        if cost := _COST.match(line.rstrip()):
            seen.cost_cents = Decimal(cost[1].decode())
        if line.startswith(b"data: "):
            said.update(line)
            _read_event(line, seen)
            if ask.manner == "reads_slowly":
                await asyncio.sleep(ask.after)
            elif _leaves_now(ask, seen, line):
                seen.left = True
                return
    seen.said = said.hexdigest()


def _read_event(line: bytes, seen: Seen) -> None:
    seen.arrivals += [time.time()] * len(_TOKEN.findall(line))
    if line == b"data: [DONE]\n":
        seen.is_whole = True
    elif line.startswith(b'data: {"error"'):
        seen.error = _decode(line[6:])["error"]["code"]
    elif b'"tollgate":{' in line:
        seen.is_curtailed = True
    elif b'"choices":[]' in line:
        seen.usage = _decode(line[6:])["usage"]


def _leaves_now(ask: Ask, seen: Seen, line: bytes) -> bool:
    match ask.manner:
        case "leaves_midway":
            return seen.tokens >= ask.after
        case "leaves_before_done":
            return b'"finish_reason":"' in line
    return False
