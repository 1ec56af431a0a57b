"""Starting anvil."""

import asyncio
import ctypes
import re
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

_LISTENING = re.compile(rb"Listening on [0-9.]+:([0-9]+)")
_PR_SET_PDEATHSIG: Final = 1


class NodeMissing(Exception):
    """Anvil is not installed."""

    def __init__(self) -> None:
        super().__init__("the EVM node is missing: `make simulated_chain/node_modules`, or an `anvil` on the path")


def find_anvil() -> Path:
    """The program that npm installed; where it has none for the machine, the one on the path. Raises NodeMissing."""
    modules = Path(__file__).parent / "node_modules" / "@foundry-rs"
    on_path = shutil.which("anvil")
    found = [*modules.glob("anvil-*/bin/anvil"), *([] if on_path is None else [Path(on_path)])]
    if not found:
        raise NodeMissing
    return found[0]


@asynccontextmanager
async def anvil(*, host: str, port: int, chain_id: int, timestamp: int | None) -> AsyncIterator[int]:
    """The port of a node while it runs. Raises NodeMissing, and OSError when it does not start."""
    arguments = ["--host", host, "--port", str(port), "--chain-id", str(chain_id)]
    if timestamp is not None:
        arguments += ["--timestamp", str(timestamp)]
    process = await asyncio.create_subprocess_exec(
        find_anvil(), *arguments, stdout=asyncio.subprocess.PIPE, preexec_fn=_die_with_parent
    )
    assert process.stdout is not None  # it is a pipe
    try:
        listening = await _port(process.stdout)
        draining = asyncio.create_task(_drain(process.stdout), name="anvil's log")
        try:
            yield listening
        finally:
            draining.cancel()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _port(output: asyncio.StreamReader) -> int:
    async for line in output:
        listening = _LISTENING.search(line)
        if listening:
            return int(listening[1])
    raise OSError("anvil ended before it listened")


async def _drain(output: asyncio.StreamReader) -> None:
    """What nobody reads would hold the node up."""
    while await output.read(65_536):
        pass


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
