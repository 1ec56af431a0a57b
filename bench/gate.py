"""(b) Requests through the gate against a bare pass-through to the same backend, in turns."""

import asyncio
import json
import os
import signal
import socket
import statistics
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec

from bench.load import Load, Outcome

CLIENTS = 64
ROUNDS = 5
SECONDS = 6.0
WARM_UP_SECONDS = 2.0
BODY = json.dumps(
    {
        "model": "qwen3-32b",
        "messages": [
            {"role": "system", "content": "You are a helpful assistant. Answer briefly."},
            {"role": "user", "content": "What does a ledger for GPU inference have to get right? " * 4},
        ],
        "max_tokens": 64,
        "temperature": 0.7,
    }
).encode()


class GateResult(msgspec.Struct):
    """Medians over the rounds, and the raw samples of each: requests per second, p50 and p99 in milliseconds."""

    throughput_ratio: float
    p50_added_ms: float
    p99_added_ms: float
    samples: dict[str, list[dict[str, float]]]


async def measure(directory: Path) -> GateResult:
    """Run everything in ``directory``, and clean up."""
    async with AsyncExitStack() as stack:
        demo = await stack.enter_async_context(_demo(directory))
        port = _free_port()
        await stack.enter_async_context(_passthrough(port, demo["backend_url"]))
        targets = {
            "passthrough": (port, ""),
            "gate": (int(demo["server_url"].rsplit(":", 1)[1]), demo["api_key"]),
        }
        await _give_money(demo)
        samples: dict[str, list[dict[str, float]]] = {name: [] for name in targets}
        for target, key in targets.values():
            await _load(target, key, WARM_UP_SECONDS)
        for number in range(ROUNDS):
            # In turns, and each first every other time: whatever else the machine does hits both alike.
            for name in sorted(targets, reverse=bool(number % 2)):
                outcome = await _load(*targets[name], SECONDS)
                if outcome.refused:
                    raise RuntimeError(f"{name}: {outcome.refused} requests were refused")
                samples[name].append(_sample(outcome))
    return _result(samples)


def _result(samples: dict[str, list[dict[str, float]]]) -> GateResult:
    gate, bare = samples["gate"], samples["passthrough"]
    pairs = list(zip(gate, bare, strict=True))
    return GateResult(
        throughput_ratio=statistics.median(g["requests_per_s"] / b["requests_per_s"] for g, b in pairs),
        p50_added_ms=statistics.median(g["p50_ms"] - b["p50_ms"] for g, b in pairs),
        p99_added_ms=statistics.median(g["p99_ms"] - b["p99_ms"] for g, b in pairs),
        samples=samples,
    )


def _sample(outcome: Outcome) -> dict[str, float]:
    ordered = sorted(outcome.latencies_ms)
    return {
        "requests_per_s": outcome.answered / outcome.seconds,
        "p50_ms": ordered[len(ordered) // 2],
        "p99_ms": ordered[len(ordered) * 99 // 100],
    }


async def _load(port: int, key: str, seconds: float) -> Outcome:
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {key}\r\nContent-Length: {len(BODY)}\r\n\r\n"
    )
    load = Load("127.0.0.1", port, head.encode() + BODY, CLIENTS, seconds)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.load", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    answer, _ = await process.communicate(msgspec.msgpack.encode(load))
    return msgspec.msgpack.decode(answer, type=Outcome)


async def _give_money(demo: dict[str, str]) -> None:
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {demo['service_token']}"}) as session:
        grant = {"account_id": demo["account_id"], "amount_cents": 100_000_000, "reason": "bench"}
        url = f"{demo['server_url']}/v1/admin/grants"
        async with session.post(url, json=grant, headers={"idempotency-key": "bench"}) as answer:
            answer.raise_for_status()


@asynccontextmanager
async def _demo(directory: Path) -> AsyncIterator[dict[str, str]]:
    command = ("-m", "tollgate.cli", "demo", "--port", str(_free_port()), "--token-latency-ms", "0")
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=directory, stdout=asyncio.subprocess.DEVNULL, start_new_session=True
    )
    try:
        file = directory / ".tollgate" / "demo.json"
        while not file.exists():
            if process.returncode is not None:
                raise RuntimeError("the demo did not start")
            await asyncio.sleep(0.1)
        yield json.loads(file.read_text())
    finally:
        process.send_signal(signal.SIGINT)
        await process.wait()


@asynccontextmanager
async def _passthrough(port: int, backend_url: str) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.passthrough", str(port), backend_url, env=dict(os.environ)
    )
    try:
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                break
        yield
    finally:
        process.terminate()
        await process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
