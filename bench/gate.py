"""(b) Requests through the gate against a bare pass-through to the same backend, in turns."""

import asyncio
import json
import statistics
import sys
from pathlib import Path

import msgspec

from bench.load import Load, Outcome
from bench.measured import Measured
from bench.servers import MODEL, Target, gate_and_passthrough

CLIENTS = 64
ROUNDS = 5
SECONDS = 6.0
WARM_UP_SECONDS = 2.0
BODY = json.dumps(
    {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "You are a helpful assistant. Answer briefly."},
            {"role": "user", "content": "What does a ledger for GPU inference have to get right? " * 4},
        ],
        "max_tokens": 64,
        "temperature": 0.7,
    }
).encode()


async def measure(directory: Path) -> Measured:
    """Run everything in ``directory``, and clean up. Samples are requests per second, and milliseconds."""
    async with gate_and_passthrough(directory / "gate") as targets:
        samples: dict[str, list[dict[str, float]]] = {name: [] for name in targets}
        for target in targets.values():
            await _load(target, WARM_UP_SECONDS)
        for number in range(ROUNDS):
            # In turns, and each first every other time: whatever else the machine does hits both alike.
            for name in sorted(targets, reverse=bool(number % 2)):
                outcome = await _load(targets[name], SECONDS)
                if outcome.refused:
                    raise RuntimeError(f"{name}: {outcome.refused} requests were refused")
                samples[name].append(_sample(outcome))
    return Measured(_medians(samples), samples)


def _medians(samples: dict[str, list[dict[str, float]]]) -> dict[str, float]:
    gate, bare = samples["gate"], samples["passthrough"]
    pairs = list(zip(gate, bare, strict=True))
    return {
        "gate_throughput_ratio": statistics.median(g["requests_per_s"] / b["requests_per_s"] for g, b in pairs),
        "gate_p50_added_ms": statistics.median(g["p50_ms"] - b["p50_ms"] for g, b in pairs),
        "gate_p99_added_ms": statistics.median(g["p99_ms"] - b["p99_ms"] for g, b in pairs),
    }


def _sample(outcome: Outcome) -> dict[str, float]:
    ordered = sorted(outcome.latencies_ms)
    return {
        "requests_per_s": outcome.answered / outcome.seconds,
        "p50_ms": ordered[len(ordered) // 2],
        "p99_ms": ordered[len(ordered) * 99 // 100],
    }


async def _load(target: Target, seconds: float) -> Outcome:
    load = Load("127.0.0.1", target.port, target.request(BODY), CLIENTS, seconds)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.load", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    answer, _ = await process.communicate(msgspec.msgpack.encode(load))
    return msgspec.msgpack.decode(answer, type=Outcome)
