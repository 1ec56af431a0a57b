"""(e) Streams through the gate against the bare pass-through to the same backend, in turns.

What counts is the CPU that a token takes. The backend makes a token every 10 ms for each stream, so that each passes as
an event of its own; as fast as it can, it would put many into one write, and the gate would be measured by the chunk.
"""

import asyncio
import json
import statistics
import sys
from pathlib import Path

import msgspec

from bench.measured import Measured
from bench.servers import MODEL, Target, gate_and_passthrough
from bench.stream_load import StreamLoad, StreamOutcome

CLIENTS = 64
ROUNDS = 5
STREAMS_EACH = 4
TOKENS = 128
TOKEN_LATENCY_MS = 10.0
BODY = json.dumps(
    {
        "model": MODEL,
        "messages": [{"role": "user", "content": "What does a ledger for GPU inference have to get right? " * 4}],
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
).encode()


async def measure(directory: Path) -> Measured:
    """Run everything in ``directory``, and clean up. Samples are tokens, for a second of CPU and of time, and ms."""
    async with gate_and_passthrough(directory / "streams", token_latency_ms=TOKEN_LATENCY_MS) as targets:
        samples: dict[str, list[dict[str, float]]] = {name: [] for name in targets}
        for target in targets.values():
            await _load(target, streams_each=1)
        for number in range(ROUNDS):
            # In turns, and each first every other time: whatever else the machine does hits both alike.
            for name in sorted(targets, reverse=bool(number % 2)):
                samples[name].append(await _sample(name, targets[name]))
    return Measured(_medians(samples), samples)


def _medians(samples: dict[str, list[dict[str, float]]]) -> dict[str, float]:
    gate, bare = samples["gate"], samples["passthrough"]
    pairs = list(zip(gate, bare, strict=True))
    return {
        "stream_tokens_ratio": statistics.median(g["tokens_per_cpu_s"] / b["tokens_per_cpu_s"] for g, b in pairs),
        "stream_tokens_per_cpu_s": statistics.median(g["tokens_per_cpu_s"] for g in gate),
        "stream_ttfb_added_ms": statistics.median(g["first_event_p50_ms"] - b["first_event_p50_ms"] for g, b in pairs),
    }


async def _sample(name: str, target: Target) -> dict[str, float]:
    cpu_before = target.cpu_s()
    outcome = await _load(target, streams_each=STREAMS_EACH)
    cpu_s = target.cpu_s() - cpu_before
    if outcome.broken:
        raise RuntimeError(f"{name}: {outcome.broken} streams did not come to their end")
    ordered = sorted(outcome.first_event_ms)
    return {
        "tokens_per_cpu_s": outcome.completed * TOKENS / cpu_s,
        "tokens_per_s": outcome.completed * TOKENS / outcome.seconds,
        "first_event_p50_ms": ordered[len(ordered) // 2],
        "first_event_p99_ms": ordered[len(ordered) * 99 // 100],
    }


async def _load(target: Target, *, streams_each: int) -> StreamOutcome:
    apart_s = TOKENS * TOKEN_LATENCY_MS / 1000 / CLIENTS
    load = StreamLoad("127.0.0.1", target.port, target.request(BODY), CLIENTS, streams_each, apart_s)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.stream_load", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    answer, _ = await process.communicate(msgspec.msgpack.encode(load))
    return msgspec.msgpack.decode(answer, type=StreamOutcome)
