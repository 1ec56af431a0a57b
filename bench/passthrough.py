"""The bare pass-through that the gate is measured against: aiohttp, and nothing else."""

import asyncio
import sys
from contextlib import suppress

import aiohttp
import uvloop
from aiohttp import web


async def _serve(port: int, backend_url: str) -> None:
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:

        async def forward(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            headers = {"content-type": "application/json"}
            async with session.post(backend_url + request.path, data=body, headers=headers) as answer:
                if answer.content_type == "text/event-stream":
                    return await _relay(request, answer)
                return web.Response(body=await answer.read(), status=answer.status, content_type=answer.content_type)

        app = web.Application(client_max_size=10 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", forward)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
        await asyncio.Event().wait()


async def _relay(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    with suppress(ConnectionResetError):  # the client has left
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
        await response.write_eof()
    return response


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2]))
