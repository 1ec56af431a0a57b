"""The process of the simulation ends when it is told to, whatever it is being asked."""

import asyncio
import sys

import aiohttp
import msgspec

PATIENCE_S = 20


async def test_a_request_that_hangs_keeps_nobody_from_stopping_it() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "simulated_stripe", "--port", "0", "--api-key", "sk_test_1", "--die-with-parent"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    port = msgspec.json.decode(await process.stdout.readline())["port"]
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session, asyncio.timeout(PATIENCE_S):
        await session.post("/_simulator/faults", json={"hang_s": 600, "times": 1})
        asked = [asyncio.create_task(session.get("/v1/events")) for _ in range(2)]
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)  # it was the other that hangs

        process.terminate()

        assert await process.wait() == 0
        await asyncio.gather(*asked, return_exceptions=True)
