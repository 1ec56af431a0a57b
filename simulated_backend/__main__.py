"""``python -m simulated_backend``: read the flags, listen, say on which port, serve until told to stop."""

import argparse
import asyncio
import ctypes
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

import msgspec

from simulated_backend.faults import BadWish, FaultBoard, parse_wishes
from simulated_backend.journal import Journal
from simulated_backend.server import Simulator, serve
from simulated_backend.serving import Options
from simulated_backend.signatures import TEST_KEY

_PR_SET_PDEATHSIG: Final = 1


def _arguments() -> argparse.Namespace:
    usual = Options()
    parser = argparse.ArgumentParser(prog="python -m simulated_backend", description="A GPU backend without a GPU.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="0 takes a free one")
    parser.add_argument("--models", default=",".join(usual.models), help="comma-separated")
    parser.add_argument("--token-latency-ms", type=float, default=usual.token_latency_ms)
    parser.add_argument("--first-token-latency-ms", type=float, default=usual.first_token_latency_ms)
    parser.add_argument("--context-length", type=int, default=usual.context_length, help="tokens")
    parser.add_argument("--simulate", default="", metavar="KEY=VALUE,…", help="faults, as in the header x-simulate")
    parser.add_argument("--journal", type=Path, help="append one JSON line for each request that ended")
    parser.add_argument("--journal-key", default=TEST_KEY.decode(), help="signs each record (HMAC-SHA256)")
    parser.add_argument("--die-with-parent", action="store_true", help="end when the parent process does (Linux)")
    return parser.parse_args()


def _die_with_parent() -> None:
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit(1)


def _announce(port: int) -> None:
    sys.stdout.write(msgspec.json.encode({"port": port}).decode() + "\n")
    sys.stdout.flush()


async def _run(arguments: argparse.Namespace, board: FaultBoard) -> None:
    options = Options(
        models=tuple(filter(None, arguments.models.split(","))),
        token_latency_ms=arguments.token_latency_ms,
        first_token_latency_ms=arguments.first_token_latency_ms,
        context_length=arguments.context_length,
    )
    simulator = Simulator(options, board, Journal(arguments.journal_key.encode(), arguments.journal))
    stopped = asyncio.Event()
    for how in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(how, stopped.set)
    await serve(simulator, host=arguments.host, port=arguments.port, until=stopped, ready=_announce)


def main() -> None:
    """Run the backend in the foreground."""
    arguments = _arguments()
    if arguments.die_with_parent:
        _die_with_parent()
    try:
        board = FaultBoard(parse_wishes(arguments.simulate))
    except BadWish as bad:
        sys.exit(f"--simulate: {bad}")
    try:
        _run_on_fastest_loop(_run(arguments, board))
    except OSError as error:
        sys.exit(f"simulated_backend: {error}")


def _run_on_fastest_loop(work: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)


if __name__ == "__main__":
    main()
