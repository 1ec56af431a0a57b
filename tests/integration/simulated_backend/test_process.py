"""The connections of the simulated backend, and its life as a process."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.integration.simulated_backend.client import (
    HELLO,
    MODEL,
    REPOSITORY,
    WAIT_LIMIT_S,
    Client,
    running_backend,
)


async def test_requests_may_come_in_chunks_and_in_pieces(backend: Client) -> None:
    body = json.dumps({"model": MODEL, "messages": HELLO}).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for position in range(0, len(body), 7):
            yield body[position : position + 7]
            await asyncio.sleep(0)

    async with backend.session.post("/v1/chat/completions", data=pieces()) as response:
        assert response.status == 200


async def test_a_large_body_that_waits_for_its_go_ahead_is_read(backend: Client) -> None:
    request = {"model": MODEL, "messages": HELLO, "padding": "x" * 10_000_000}
    async with backend.session.post("/v1/chat/completions", json=request, expect100=True) as response:
        assert response.status == 200


async def test_pipelined_requests_are_answered_in_order(backend: Client) -> None:
    answered = await backend.exchange(b"GET /health HTTP/1.1\r\n\r\nGET /nowhere HTTP/1.1\r\nConnection: close\r\n\r\n")

    assert answered.startswith(b"HTTP/1.1 200 OK")
    assert b"HTTP/1.1 404 Not Found" in answered


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\ncontent-length: 999999999\r\n\r\n", b"413"),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000, b"431"),
    ],
)
async def test_what_is_no_request_is_refused_and_disconnected(backend: Client, sent: bytes, status: bytes) -> None:
    assert (await backend.exchange(sent)).startswith(b"HTTP/1.1 " + status)


# The process


async def test_the_journal_file_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with running_backend("--journal", str(path), "--token-latency-ms", "0") as (process, url):
        async with aiohttp.ClientSession(url) as session:
            client = Client(url, session)
            await client.answer({"max_tokens": 2}, request_id="kept")
            await client.record("kept")
        process.kill()

    lines = [json.loads(line) for line in path.read_text().splitlines()]

    assert [(line["request_id"], line["completion_tokens"]) for line in lines] == [("kept", 2)]


async def test_sigterm_ends_it_at_once_and_records_what_was_running(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with running_backend("--journal", str(path)) as (process, url):
        async with (
            aiohttp.ClientSession(url) as session,
            Client(url, session).post({"stream": True}, simulate="tokens=4000", request_id="half") as response,
        ):
            await response.content.readline()
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, WAIT_LIMIT_S) == 0

    assert [json.loads(line)["outcome"] for line in path.read_text().splitlines()] == ["aborted"]


PARENT = """
import subprocess, sys, time
argv = [sys.executable, "-m", "simulated_backend", "--port", "0", "--die-with-parent"]
child = subprocess.Popen(argv, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""


def spawn_parent() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)


async def test_it_dies_with_a_killed_parent() -> None:
    with spawn_parent() as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()

    deadline = time.monotonic() + WAIT_LIMIT_S
    while is_running(pid):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
