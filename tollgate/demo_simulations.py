"""Programs that play others for the demo, each a process of its own that ends with it."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec


@asynccontextmanager
async def simulation(module: str, *arguments: str) -> AsyncIterator[str]:
    """The module's URL while it runs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, "--port", "0", "--die-with-parent", *arguments),
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None  # it is a pipe
        port = msgspec.json.decode(await process.stdout.readline(), type=dict[str, int])["port"]
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
