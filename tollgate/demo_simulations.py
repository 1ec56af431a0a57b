"""Programs that play others for the demo, each a process of its own that ends with it."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from tollgate.settings import SettingsError


@asynccontextmanager
async def simulation(module: str, *arguments: str) -> AsyncIterator[str]:
    """The module's URL while it runs. Raises SettingsError when it does not start."""
    async with announced_simulation(module, *arguments) as said:
        yield f"http://127.0.0.1:{said['port']}"


@asynccontextmanager
async def announced_simulation(module: str, *arguments: str) -> AsyncIterator[dict[str, Any]]:
    """What the module says of itself when it listens, while it runs. Raises as ``simulation``."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, "--port", "0", "--die-with-parent", *arguments),
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None  # it is a pipe
        said = await process.stdout.readline()
        if not said:
            raise SettingsError(f"{module} did not start")
        yield msgspec.json.decode(said, type=dict[str, Any])
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
