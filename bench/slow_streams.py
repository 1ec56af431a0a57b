"""(f) The memory that a stream takes while it is open: a thousand slow ones at once, gate against bare pass-through.

Each round has new processes, for memory that was given back once is not taken anew by the next thousand.
"""

import asyncio
import json
import statistics
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from bench.measured import Measured
from bench.servers import MODEL, Target, gate_and_passthrough

STREAMS = 1000
WARM_UP_STREAMS = 50
ROUNDS = 3
TOKEN_LATENCY_MS = 500.0
#: Reads of each stream before memory is taken as settled: by then every buffer has been used.
READS_AT_PLATEAU = 4
#: Connections that are opened at the same moment; more would wait for the backlog of a listening socket.
AT_ONCE = 50
WITHIN_S = 60.0
BODY = json.dumps(
    {
        "model": MODEL,
        "messages": [{"role": "user", "content": "What does a ledger for GPU inference have to get right? " * 4}],
        "max_tokens": 8192,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
).encode()


async def measure(directory: Path) -> Measured:
    """Run everything in ``directory``, and clean up. Samples are bytes for a stream."""
    samples: dict[str, list[float]] = {}
    for number in range(ROUNDS):
        place = directory / f"slow-streams-{number}"
        async with gate_and_passthrough(place, token_latency_ms=TOKEN_LATENCY_MS) as targets:
            for name, target in targets.items():
                samples.setdefault(name, []).append(await _bytes_per_stream(target))
    pairs = zip(samples["gate"], samples["passthrough"], strict=True)
    medians = {
        "stream_bytes_per_stream": statistics.median(samples["gate"]),
        "stream_bytes_added": statistics.median(gate - bare for gate, bare in pairs),
    }
    return Measured(medians, samples)


async def _bytes_per_stream(target: Target) -> float:
    async with _open_streams(target, WARM_UP_STREAMS):
        pass
    before = target.memory_bytes()
    async with _open_streams(target, STREAMS):
        return (target.memory_bytes() - before) / STREAMS


class _Stream(asyncio.Protocol):
    """One stream that is read as it comes."""

    def __init__(self) -> None:
        self.settled = asyncio.Event()  # has been read often enough
        self.is_open = True
        self._reads = 0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._reads += b"data: " in data
        if self._reads == READS_AT_PLATEAU:
            self.settled.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False


@asynccontextmanager
async def _open_streams(target: Target, number: int) -> AsyncIterator[None]:
    """So many streams under way, all at the same time by the count of the backend; over when it counts none."""
    streams: list[_Stream] = []
    for _ in range(number // AT_ONCE):
        streams += await asyncio.gather(*(_stream(target) for _ in range(AT_ONCE)))
    async with asyncio.timeout(WITHIN_S), aiohttp.ClientSession(target.backend_url) as backend:
        await asyncio.gather(*(stream.settled.wait() for stream in streams))
        running = await _running(backend)
        if running != number or not all(stream.is_open for stream in streams):
            raise RuntimeError(f"{running} of {number} streams are open")
        yield
        for stream in streams:
            stream.transport.abort()
        while await _running(backend):  # noqa: ASYNC110 - only the backend knows
            await asyncio.sleep(0.05)


async def _stream(target: Target) -> _Stream:
    loop = asyncio.get_running_loop()
    transport, stream = await loop.create_connection(_Stream, "127.0.0.1", target.port)
    transport.write(target.request(BODY))
    return stream


async def _running(backend: aiohttp.ClientSession) -> int:
    async with backend.get("/_simulator/requests?running") as answer:
        return len(await answer.json())
