"""The gate and the bare pass-through to the same backend, each a process of its own.

The gate is the demo: one worker, with a simulated backend and a Postgres that flushes to disk.
"""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec

MODEL = "qwen3-32b"


class Target(msgspec.Struct, frozen=True):
    """A server that passes chat completions on. Linux tells what its process costs."""

    port: int
    api_key: str  # empty where none is asked for
    pid: int
    backend_url: str

    def request(self, body: bytes) -> bytes:
        """A chat completion, head and body, for a connection that is kept."""
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            f"Authorization: Bearer {self.api_key}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def cpu_s(self) -> float:
        """Seconds of CPU that the process has taken so far, all threads, in steps of 10 ms."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_bytes(self) -> int:
        """Memory of the process, what it shares with others by its part (PSS)."""
        lines = Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


@asynccontextmanager
async def gate_and_passthrough(directory: Path, *, token_latency_ms: float = 0.0) -> AsyncIterator[dict[str, Target]]:
    """Both of them, ``gate`` and ``passthrough``, with money enough for every request."""
    async with AsyncExitStack() as stack:
        demo = await stack.enter_async_context(_demo(directory, token_latency_ms))
        backend_url = demo["backend_url"]
        port = _free_port()
        pid = await stack.enter_async_context(_passthrough(port, backend_url))
        await _give_money(demo)
        yield {
            "passthrough": Target(port, "", pid, backend_url),
            "gate": Target(
                int(demo["server_url"].rsplit(":", 1)[1]), demo["api_key"], _gate_worker(demo["pid"]), backend_url
            ),
        }


async def _give_money(demo: dict[str, str]) -> None:
    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {demo['service_token']}"}) as session:
        grant = {"account_id": demo["account_id"], "amount_cents": 100_000_000, "reason": "bench"}
        url = f"{demo['server_url']}/v1/admin/grants"
        async with session.post(url, json=grant, headers={"idempotency-key": "bench"}) as answer:
            answer.raise_for_status()


@asynccontextmanager
async def _demo(directory: Path, token_latency_ms: float) -> AsyncIterator[dict[str, str]]:
    command = ("-m", "tollgate.cli", "demo", "--port", str(_free_port()), "--token-latency-ms", str(token_latency_ms))
    await asyncio.to_thread(directory.mkdir)
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


def _gate_worker(demo_pid: str) -> int:
    children = Path(f"/proc/{demo_pid}/task/{demo_pid}/children").read_text().split()
    return next(int(pid) for pid in children if b"gate-worker" in Path(f"/proc/{pid}/cmdline").read_bytes())


@asynccontextmanager
async def _passthrough(port: int, backend_url: str) -> AsyncIterator[int]:
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
        yield process.pid
    finally:
        process.terminate()
        await process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
