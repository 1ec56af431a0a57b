"""``python -m simulated_stripe``: read the flags, listen, say on which port, serve until told to stop."""

import argparse
import asyncio
import ctypes
import os
import signal
import sys
from typing import Final

import msgspec
from aiohttp import web

from simulated_stripe.server import SimulatedStripe
from simulated_stripe.webhooks import Endpoint

_PR_SET_PDEATHSIG: Final = 1
#: What requests get to finish.
SHUTDOWN_S: Final = 0.1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m simulated_stripe", description="Stripe without Stripe.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True, help="0 takes a free one")
    parser.add_argument("--api-key", required=True, help="that callers must have")
    parser.add_argument("--webhook-url", help="where events go")
    parser.add_argument("--webhook-secret", default="", help="what they are signed with")
    parser.add_argument("--die-with-parent", action="store_true", help="end when the parent process does (Linux)")
    return parser.parse_args()


def _die_with_parent() -> None:
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            sys.exit(1)


async def _run(arguments: argparse.Namespace) -> None:
    stripe = SimulatedStripe(arguments.api_key)
    if arguments.webhook_url is not None:
        stripe.courier.endpoint = Endpoint(url=arguments.webhook_url, secret=arguments.webhook_secret)
    stopped = asyncio.Event()
    for how in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(how, stopped.set)
    # Zero would be no limit: whoever is being kept waiting would be waited for.
    runner = web.AppRunner(stripe.app(), access_log=None, shutdown_timeout=SHUTDOWN_S, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, arguments.host, arguments.port)
    await site.start()
    sys.stdout.write(msgspec.json.encode({"port": runner.addresses[0][1]}).decode() + "\n")
    sys.stdout.flush()
    await stopped.wait()
    await runner.cleanup()


def main() -> None:
    """Run it in the foreground."""
    arguments = _arguments()
    if arguments.die_with_parent:
        _die_with_parent()
    try:
        asyncio.run(_run(arguments))
    except OSError as error:
        sys.exit(f"simulated_stripe: {error}")


if __name__ == "__main__":
    main()
