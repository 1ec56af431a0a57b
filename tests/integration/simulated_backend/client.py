"""A backend process, and its caller."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp

REPOSITORY = Path(__file__).resolve().parents[3]
MODEL = "simulated-small"
WAIT_LIMIT_S = 30.0
HELLO: list[Any] = [{"role": "user", "content": "Say something about ledgers."}]


@contextmanager
def running_backend(*flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A backend process and its URL."""
    argv = [sys.executable, "-m", "simulated_backend", "--port", "0", "--die-with-parent", *flags]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())["port"]
        yield process, f"http://127.0.0.1:{port}"
        process.terminate()


class Client:
    """One backend as its caller sees it."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session

    @asynccontextmanager
    async def post(
        self, body: dict[str, Any], *, simulate: str = "", request_id: str = ""
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {"x-simulate": simulate, "x-request-id": request_id}
        headers = {name: value for name, value in headers.items() if value}
        request = {"model": MODEL, "messages": HELLO, **body}
        async with self.session.post("/v1/chat/completions", json=request, headers=headers) as response:
            yield response

    async def answer(self, body: dict[str, Any] | None = None, **how: str) -> dict[str, Any]:
        async with self.post(body or {}, **how) as response:
            assert response.status == 200, await response.text()
            answer: dict[str, Any] = await response.json()
            return answer

    async def refusal(self, body: dict[str, Any], **how: str) -> tuple[int, dict[str, Any]]:
        async with self.post(body, **how) as response:
            return response.status, (await response.json())["error"]

    async def received(self, body: dict[str, Any], *, simulate: str, request_id: str) -> bytes:
        """Every byte that comes until the backend closes: client libraries drop what came before an early end."""
        request = json.dumps({"model": MODEL, "messages": HELLO, **body})
        head = f"x-simulate: {simulate}\r\nx-request-id: {request_id}\r\ncontent-length: {len(request)}"
        return await self.exchange(f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n\r\n{request}".encode())

    async def exchange(self, sent: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(self.url.rpartition(":")[2]))
        writer.write(sent)
        received = await reader.read()
        writer.close()
        return received

    async def events(self, body: dict[str, Any] | None = None, **how: str) -> list[Any]:
        """The data of each event; ``[DONE]`` as that text."""
        async with self.post({"stream": True, **(body or {})}, **how) as response:
            assert response.status == 200
            text = await response.text()
        blocks = text.removesuffix("\n\n").split("\n\n")
        datas = [block.removeprefix("data: ") for block in blocks]
        return [data if data == "[DONE]" else json.loads(data) for data in datas]

    async def get(self, path: str) -> Any:
        async with self.session.get(path) as response:
            return await response.json()

    async def tokenize(self, body: dict[str, Any], *, simulate: str = "") -> tuple[int, Any]:
        headers = {"x-simulate": simulate} if simulate else {}
        async with self.session.post("/tokenize", json={"model": MODEL, **body}, headers=headers) as response:
            return response.status, await response.json()

    async def simulate(self, **faults: Any) -> None:
        async with self.session.post("/_simulator/faults", json=faults) as response:
            assert response.status == 200, await response.text()

    async def record(self, request_id: str) -> dict[str, Any]:
        """The journal's record of a request, once it has ended."""
        deadline = time.monotonic() + WAIT_LIMIT_S
        while time.monotonic() < deadline:
            record: dict[str, Any] | None = await self.get(f"/_simulator/requests/{request_id}")
            if record and record["outcome"] != "running":
                return record
            await asyncio.sleep(0.01)
        raise AssertionError(f"{request_id} did not end")


def text_of(events: list[Any], choice: int = 0) -> str:
    chunks = [event for event in events if event != "[DONE]"]
    deltas = [part["delta"] for chunk in chunks for part in chunk["choices"] if part["index"] == choice]
    return "".join(delta.get("content", "") for delta in deltas)


def usages_in(events: list[Any]) -> list[Any]:
    return [event["usage"] for event in events if event != "[DONE]" and "usage" in event]
