"""A load generator: keep-alive connections that send one prepared request again and again.

As little Python as can be between two requests, for the generator shares the machine with what it measures.
"""

import asyncio
import sys
import time
from typing import Any

import msgspec
import uvloop


class Load(msgspec.Struct):
    """What to send, from how many connections at once, for how long."""

    host: str
    port: int
    request: bytes
    clients: int
    seconds: float


class Outcome(msgspec.Struct):
    """Answers with status 200, all others, and the latency of each of the first in milliseconds."""

    answered: int
    refused: int
    seconds: float
    latencies_ms: list[float]


class _Client(asyncio.Protocol):
    """Sends, reads one answer by its content-length, sends again."""

    def __init__(self, load: Load, stop_at: float, outcome: Outcome, ended: asyncio.Future[None]) -> None:
        self._load = load
        self._stop_at = stop_at
        self._outcome = outcome
        self._ended = ended
        self._buffer = b""
        self._sent_at = 0.0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        headers = self._buffer[:head].lower()
        start = headers.find(b"content-length: ") + 16
        length = int(headers[start : headers.index(b"\r", start) if b"\r" in headers[start:] else None])
        if len(self._buffer) < head + 4 + length:
            return
        if self._buffer.startswith(b"HTTP/1.1 200"):
            self._outcome.answered += 1
            self._outcome.latencies_ms.append((time.perf_counter() - self._sent_at) * 1000)
        else:
            self._outcome.refused += 1
        self._buffer = b""
        self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._ended.done():
            self._ended.set_result(None)

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        if self._sent_at >= self._stop_at:
            self._transport.close()
        else:
            self._transport.write(self._load.request)


async def run(load: Load) -> Outcome:
    """Send until the time is over."""
    loop = asyncio.get_running_loop()
    outcome = Outcome(0, 0, 0.0, [])
    began = time.perf_counter()
    endings = []
    for _ in range(load.clients):
        ended: asyncio.Future[None] = loop.create_future()
        endings.append(ended)
        client = _Client(load, began + load.seconds, outcome, ended)
        await loop.create_connection(lambda client=client: client, load.host, load.port)  # type: ignore[misc]
    await asyncio.gather(*endings)
    outcome.seconds = time.perf_counter() - began
    return outcome


def main() -> None:
    """Read a Load from stdin, write its Outcome to stdout: a process of its own, so that it takes no one's loop."""
    load = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Load)
    sys.stdout.buffer.write(msgspec.msgpack.encode(uvloop.run(run(load))))


if __name__ == "__main__":
    main()
