"""The ground truth: for each request what was really computed and sent, for tests that check a bill against it."""

import hashlib
import os
import time
from collections import deque
from pathlib import Path
from typing import Final, Literal

import msgspec

from simulated_backend.generation import Generation, content_of
from simulated_backend.signatures import sign

#: Finished requests kept in memory; at about 700 bytes each, 35 MB.
KEPT_RECORDS: Final = 50_000

Outcome = Literal[
    "running",
    "finished",  # everything was sent
    "aborted",  # the client went away (or this process was told to stop) before the end
    "refused",  # an error instead of an answer; nothing was computed
    "cut",  # a simulated fault ended it early
]


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What one request cost this backend, whatever the answer said about it."""

    sequence: int  # order of ending, from 1; 0 while running
    request_id: str  # the caller's x-request-id, else made up here
    model: str  # as asked for; empty when the request was refused unread
    stream: bool
    status: int  # of the answer; 0 when the connection was closed without one
    outcome: Outcome
    prompt_tokens: int  # counted once, however many choices
    cached_tokens: int  # of the prompt, found in the prompt cache
    completion_tokens: int  # generated, over all choices
    tokens_written: int  # of these, taken by the operating system for sending; all or none of a plain answer
    body_bytes: int  # of the answer's body that were given to the connection, without the framing of HTTP
    body_sha256: str  # over these bytes, in hex
    content_sha256: str  # over the text of the tokens generated, in hex: each choice to its end, then the next
    started_at: float  # seconds since 1970
    ended_at: float | None  # None while running


class Exchange:
    """A request under way. The one who serves it keeps the numbers true at every instant."""

    __slots__ = (
        "_body",
        "body_bytes",
        "cached_tokens",
        "completion_tokens",
        "generation",
        "model",
        "outcome",
        "prompt_tokens",
        "request_id",
        "started_at",
        "status",
        "steps",
        "stream",
        "tokens_told",
        "tokens_written",
    )

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.model = ""
        self.stream = False
        self.status = 0
        self.outcome: Outcome = "running"
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.generation: Generation | None = None  # None for a request that gets none
        self.steps = 0  # of the engine: tokens generated of the longest choice
        self.completion_tokens = 0
        self.tokens_told = 0  # of these, in events or an answer that the connection was given
        self.tokens_written = 0
        self.body_bytes = 0
        self._body = hashlib.sha256()
        self.started_at = time.time()

    def wrote(self, data: bytes) -> None:
        """This was given to the connection as the next part of the answer's body."""
        self.body_bytes += len(data)
        self._body.update(data)

    def record(self, *, sequence: int, ended_at: float | None) -> Record:
        """The numbers as they are now."""
        return Record(
            sequence=sequence,
            request_id=self.request_id,
            model=self.model,
            stream=self.stream,
            status=self.status,
            outcome=self.outcome,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            completion_tokens=self.completion_tokens,
            tokens_written=self.tokens_written,
            body_bytes=self.body_bytes,
            body_sha256=self._body.hexdigest(),
            content_sha256=hashlib.sha256(self._content()).hexdigest(),
            started_at=self.started_at,
            ended_at=ended_at,
        )

    def _content(self) -> bytes:
        return b"" if self.generation is None else content_of(self.generation, self.steps)


class Journal:
    """The latest records in memory and, when asked for, all of them in a file, one signed JSON line each."""

    def __init__(self, key: bytes, path: Path | None = None) -> None:
        # Written without a buffer, so that a line is there as soon as the request is over, kill -9 or not.
        self._file = None if path is None else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._key = key
        self._encoder = msgspec.json.Encoder()
        self._ended: deque[Record] = deque()
        self._by_id: dict[str, Record] = {}
        self._running: dict[str, Exchange] = {}
        self._sequence = 0

    def begin(self, exchange: Exchange) -> None:
        """Make a request visible while it runs."""
        self._running[exchange.request_id] = exchange

    def end(self, exchange: Exchange) -> None:
        """Write down how a request ended."""
        self._sequence += 1
        record = exchange.record(sequence=self._sequence, ended_at=time.time())
        if self._running.get(exchange.request_id) is exchange:
            del self._running[exchange.request_id]
        if self._file is not None:
            os.write(self._file, self.line(record) + b"\n")
        self._keep(record)

    def line(self, record: Record) -> bytes:
        """The record as it is given out: JSON with a signature, see ``signatures``."""
        return sign(self._encoder.encode(record), self._key)

    def _keep(self, record: Record) -> None:
        self._ended.append(record)
        self._by_id[record.request_id] = record
        if len(self._ended) > KEPT_RECORDS:
            oldest = self._ended.popleft()
            if self._by_id.get(oldest.request_id) is oldest:
                del self._by_id[oldest.request_id]

    def since(self, sequence: int) -> list[Record]:
        """The kept records that ended after this one, in order."""
        newer = []
        for record in reversed(self._ended):
            if record.sequence <= sequence:
                break
            newer.append(record)
        return newer[::-1]

    def running(self) -> list[Record]:
        """The requests under way."""
        return [exchange.record(sequence=0, ended_at=None) for exchange in self._running.values()]

    def find(self, request_id: str) -> Record | None:
        """The latest request with this id, running or ended; None when it is not known (any more)."""
        if exchange := self._running.get(request_id):
            return exchange.record(sequence=0, ended_at=None)
        return self._by_id.get(request_id)
