"""A node between ours and the real one, over a socket, that can lag, lie, refuse and be silent."""

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from simulated_chain.rpc import ask


class OddNode:
    """A node in front of the real one, which gives its answers unless it is told to be odd."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.largest_range: int | None = None
        self.behind = 0  # blocks that it has not heard of yet
        self.is_away = False
        self.is_silent = False
        self.answers: dict[str, Any] = {}  # by method, instead of the real one
        self.more_logs: list[Any] = []  # that nobody sent
        self.receipts: dict[str, Any] = {}  # by transaction, instead of the real one
        self.asked: list[tuple[str, Any]] = []
        self._was_asked = asyncio.Condition()

    async def until_asked(self, times: int) -> None:
        """Once it has been asked so often."""
        async with self._was_asked:
            await self._was_asked.wait_for(lambda: len(self.asked) >= times)

    async def answer(self, request: web.Request) -> web.Response:
        question = msgspec.json.decode(await request.read())
        method, parameters = question["method"], question["params"]
        async with self._was_asked:
            self.asked.append((method, parameters))
            self._was_asked.notify_all()
        if self.is_away:
            return web.Response(status=503)
        if self.is_silent:
            await asyncio.sleep(60)
        if method in self.answers:
            return self._said(question, self.answers[method])
        if method == "eth_getTransactionReceipt" and parameters[0] in self.receipts:
            return self._said(question, self.receipts[parameters[0]])
        if method == "eth_getLogs" and self.largest_range is not None:
            first, last = (int(parameters[0][end], 16) for end in ("fromBlock", "toBlock"))
            if last - first + 1 > self.largest_range:
                return web.json_response(
                    {
                        "jsonrpc": "2.0",
                        "id": question["id"],
                        "error": {"code": -32005, "message": "query returned more than 10000 results"},
                    }
                )
        return await self._forwarded(question)

    async def _forwarded(self, question: Mapping[str, Any]) -> web.Response:
        async with aiohttp.ClientSession() as session, session.post(self.url, json=question) as answer:
            said = await answer.json()
        method, parameters = question["method"], question["params"]
        head = 2**60
        if self.behind:
            head = int(await asyncio.to_thread(ask, self.url, "eth_blockNumber"), 16) - self.behind
        if method == "eth_blockNumber" and self.behind:
            return self._said(question, hex(head))
        if method == "eth_getBlockByNumber" and parameters[0].startswith("0x") and int(parameters[0], 16) > head:
            return self._said(question, None)
        if method == "eth_getLogs":
            seen = [log for log in said["result"] if int(log["blockNumber"], 16) <= head]
            first, last = (int(parameters[0][end], 16) for end in ("fromBlock", "toBlock"))
            made_up = [log for log in self.more_logs if first <= int(log["blockNumber"], 16) <= last]
            return self._said(question, seen + made_up)
        return web.json_response(said)

    def _said(self, question: Mapping[str, Any], result: Any) -> web.Response:
        return web.json_response({"jsonrpc": "2.0", "id": question["id"], "result": result})

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/", self.answer)
        return app
