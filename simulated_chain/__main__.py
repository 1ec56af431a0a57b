"""``python -m simulated_chain``: start the node, put the coin on it, say where, and stay until told to stop."""

import argparse
import asyncio
import ctypes
import os
import signal
import sys
from typing import Final

import msgspec

from simulated_chain.node import NodeMissing, anvil
from simulated_chain.rpc import RpcError
from simulated_chain.token import deploy

_PR_SET_PDEATHSIG: Final = 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m simulated_chain", description="An EVM chain without its money.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="0 takes a free one")
    parser.add_argument("--chain-id", type=int, default=31_337)
    parser.add_argument("--timestamp", type=int, default=None, help="of the first block, in seconds since 1970")
    parser.add_argument("--die-with-parent", action="store_true", help="end when the parent process does (Linux)")
    return parser.parse_args()


def _die_with_parent() -> None:
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit(1)


async def _run(arguments: argparse.Namespace) -> None:
    stopped = asyncio.Event()
    for how in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(how, stopped.set)
    node = anvil(host=arguments.host, port=arguments.port, chain_id=arguments.chain_id, timestamp=arguments.timestamp)
    async with node as port:
        token = await asyncio.to_thread(deploy, f"http://{arguments.host}:{port}")
        said = {"port": port, "token": token, "chain_id": arguments.chain_id}
        sys.stdout.write(msgspec.json.encode(said).decode() + "\n")
        sys.stdout.flush()
        await stopped.wait()


def main() -> None:
    """Run it in the foreground."""
    arguments = _arguments()
    if arguments.die_with_parent:
        _die_with_parent()
    try:
        asyncio.run(_run(arguments))
    except (NodeMissing, RpcError, OSError) as error:
        sys.exit(f"simulated_chain: {error}")


if __name__ == "__main__":
    main()
