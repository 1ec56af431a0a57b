"""A load generator for streams: each connection reads one to its end, then asks for the next.

The connections begin one after the other, spread over the time that a stream takes: begun together they would stay
together, and the time to the first byte would be that of a crowd.
"""

import asyncio
import sys
import time
from typing import Any

import msgspec
import uvloop

#: How the chunks of a stream end; no event ends so.
_LAST_CHUNK = b"0\r\n\r\n"
#: Enough of what came last to find the end mark in.
_TAIL_BYTES = 64


class StreamLoad(msgspec.Struct):
    """What to send, from how many connections at once, how often from each."""

    host: str
    port: int
    request: bytes
    clients: int
    streams_each: int
    apart_s: float  # between the beginnings of two connections


class StreamOutcome(msgspec.Struct):
    """Streams that came to their end mark, all others, and of each of the first the time to its first event."""

    completed: int
    broken: int
    seconds: float
    first_event_ms: list[float]


class _Client(asyncio.Protocol):
    """Reads a stream, and asks for the next; gives up at the first that is broken."""

    def __init__(self, load: StreamLoad, outcome: StreamOutcome, ended: asyncio.Future[None]) -> None:
        self._load = load
        self._outcome = outcome
        self._ended = ended
        self._left = load.streams_each

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        if not self._has_begun:
            if b"data: " not in data:
                return
            self._has_begun = True
            self._outcome.first_event_ms.append((time.perf_counter() - self._sent_at) * 1000)
        self._tail = (self._tail + data)[-_TAIL_BYTES:]
        if not self._tail.endswith(_LAST_CHUNK):
            return
        if b"data: [DONE]" not in self._tail:
            self._transport.close()
            return
        self._outcome.completed += 1
        self._left -= 1
        if self._left:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._outcome.broken += self._left
        self._ended.set_result(None)

    def _send(self) -> None:
        self._has_begun = False
        self._tail = b""
        self._sent_at = time.perf_counter()
        self._transport.write(self._load.request)


async def run(load: StreamLoad) -> StreamOutcome:
    """Read all the streams."""
    loop = asyncio.get_running_loop()
    outcome = StreamOutcome(0, 0, 0.0, [])
    began = time.perf_counter()
    endings = []
    for _ in range(load.clients):
        ended: asyncio.Future[None] = loop.create_future()
        endings.append(ended)
        client = _Client(load, outcome, ended)
        await loop.create_connection(lambda client=client: client, load.host, load.port)  # type: ignore[misc]
        await asyncio.sleep(load.apart_s)
    await asyncio.gather(*endings)
    outcome.seconds = time.perf_counter() - began
    return outcome


def main() -> None:
    """Read a StreamLoad from stdin, write its StreamOutcome to stdout: a process of its own, as ``bench.load``."""
    load = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=StreamLoad)
    sys.stdout.buffer.write(msgspec.msgpack.encode(uvloop.run(run(load))))


if __name__ == "__main__":
    main()
