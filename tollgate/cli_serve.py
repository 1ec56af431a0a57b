"""``tollgate serve``, ``worker`` and ``demo``: the commands that run until they are stopped."""

import argparse
import asyncio
import os
import signal
from typing import Any

import msgspec

from tollgate.database import database
from tollgate.demo import run_demo
from tollgate.logging import log_to_stdout
from tollgate.notices_config import courier_config
from tollgate.payments_config import payments_config
from tollgate.processes import Supervisor, run_background_process, run_gate_worker, settings_arguments
from tollgate.settings import Settings, SettingsError, load_settings, server_secret

DEMO_PORT = 8080


def add_commands(commands: Any) -> None:
    """Add this module's commands to the parser."""
    serve = commands.add_parser("serve", help="serve the gate: worker processes on one port, and a background process")
    serve.add_argument("--workers", type=int, help="gate processes (default: server.workers)")
    _add_address(serve)
    serve.set_defaults(run=_serve)
    worker = commands.add_parser("worker", help="be one background process: sweeps, payments, notices, projections")
    worker.set_defaults(run=_worker)
    gate = commands.add_parser("gate-worker", help="be one gate process; `serve` starts these")
    _add_address(gate)
    gate.set_defaults(run=_gate_worker)
    demo = commands.add_parser("demo", help="everything at once: Postgres, a simulated backend, a customer with a key")
    demo.add_argument("--port", type=int, default=DEMO_PORT)
    demo.add_argument("--workers", type=int, default=1, help="gate processes")
    demo.add_argument("--token-latency-ms", type=float, default=5.0, help="of the simulated backend")
    demo.add_argument("--payments", action="store_true", help="top-ups too, by a simulated Stripe and Alipay")
    demo.set_defaults(run=_demo)


def _add_address(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", help="address to listen on (default: server.host)")
    parser.add_argument("--port", type=int, help="port (default: server.port)")


async def _serve(options: argparse.Namespace) -> None:
    log_to_stdout()
    settings = _settings(options)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with database(settings) as url:
        environment = {
            **os.environ,
            "TOLLGATE_DATABASE_URL": url,
            "TOLLGATE_SECRET": server_secret(settings).decode(),
        }
        supervisor = Supervisor(settings, settings_arguments(options.config), environment)
        supervisor.start()
        try:
            await stop.wait()
        finally:
            await supervisor.stop()


def _gate_worker(options: argparse.Namespace) -> None:
    settings = _settings(options)
    run_gate_worker(
        settings,
        database_url=_given_url(),
        secret=server_secret(settings),
        payments=payments_config(settings),
    )


def _worker(options: argparse.Namespace) -> None:
    settings = load_settings(options.config)
    notices = courier_config(settings, server_secret(settings))
    run_background_process(_given_url(), payments_config(settings), notices)


async def _demo(options: argparse.Namespace) -> None:
    log_to_stdout()
    await run_demo(
        port=options.port,
        workers=options.workers,
        token_latency_ms=options.token_latency_ms,
        with_payments=options.payments,
    )


def _settings(options: argparse.Namespace) -> Settings:
    """The settings of the file, with what the command line says instead."""
    settings = load_settings(options.config)
    named = {name: getattr(options, name, None) for name in ("workers", "host", "port")}
    changes = {name: value for name, value in named.items() if value is not None}
    return msgspec.structs.replace(settings, server=msgspec.structs.replace(settings.server, **changes))


def _given_url() -> str:
    url = os.environ.get("TOLLGATE_DATABASE_URL")
    if url is None:
        raise SettingsError("TOLLGATE_DATABASE_URL is not set; with the embedded Postgres, run `tollgate serve`")
    return url
