"""The processes of a server: gate workers on one port, a background process, and the supervisor that keeps them.

Workers share the port by SO_REUSEPORT and share nothing else: what they must agree on is in Postgres.
"""

import asyncio
import ctypes
import gc
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from datetime import datetime
from pathlib import Path

import structlog
import uvloop
from aiohttp import web
from prometheus_client import multiprocess

from notices import CourierConfig
from payments import PaymentsConfig
from tollgate.app import GATE, gate_app, utc_now
from tollgate.background import run_background
from tollgate.logging import log_to_stdout
from tollgate.settings import Settings, SettingsError

#: A process that ends is started again after this long, so that one that cannot start does not spin.
RESTART_AFTER_S = 0.5
#: How long a client's connection stays open for its next request.
KEEPALIVE_S = 75.0
BACKLOG = 1024
#: What other requests than metered ones get to finish, once these have.
SHUTDOWN_S = 5.0
#: Container objects between two collections of the youngest; Python's own 700 is a few requests.
GC_THRESHOLD = 50_000

_PR_SET_PDEATHSIG = 1
_log = structlog.get_logger(__name__)


def run_gate_worker(
    settings: Settings,
    *,
    database_url: str,
    secret: bytes,
    payments: PaymentsConfig,
    clock: Callable[[], datetime] = utc_now,
) -> None:
    """Be one gate process until SIGTERM or SIGINT; then finish what is in flight, and leave."""
    log_to_stdout()
    _die_with_parent()
    running = gate_app(settings, database_url=database_url, secret=secret, payments=payments, clock=clock)
    uvloop.run(_serve(settings, running))


def run_background_process(database_url: str, payments: PaymentsConfig, notices: CourierConfig) -> None:
    """Be the background process until SIGTERM or SIGINT."""
    log_to_stdout()
    _die_with_parent()

    async def run() -> None:
        await run_background(database_url, _stop_signal(), payments, notices)

    uvloop.run(run())


async def _serve(settings: Settings, running: AbstractAsyncContextManager[web.Application]) -> None:
    stop = _stop_signal()
    async with running as app:
        runner = web.AppRunner(
            app,
            access_log=None,
            keepalive_timeout=KEEPALIVE_S,
            shutdown_timeout=SHUTDOWN_S,
            handler_cancellation=True,  # a client that leaves is noticed at once, whatever its request waits for
        )
        await runner.setup()
        site = web.TCPSite(runner, settings.server.host, settings.server.port, reuse_port=True, backlog=BACKLOG)
        await site.start()
        _calm_the_collector()
        _log.info("worker.started", pid=os.getpid(), port=settings.server.port)
        await stop.wait()
        await site.stop()
        await app[GATE].drain(within_s=settings.server.drain_s)
        await runner.cleanup()
    _log.info("worker.stopped", pid=os.getpid())


class Supervisor:
    """Starts the processes, starts again those that end, and stops them all."""

    def __init__(self, settings: Settings, arguments: Sequence[str], environment: dict[str, str]) -> None:
        self._settings = settings
        self._arguments = arguments  # that name the settings file
        self._metrics_dir = tempfile.mkdtemp(prefix="tollgate-metrics-")
        self._environment = environment | {"PROMETHEUS_MULTIPROC_DIR": self._metrics_dir}
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start the processes. Raises SettingsError when the port is taken, or nothing can be written ahead."""
        require_free_port(self._settings.server.host, self._settings.server.port)
        require_writable(Path(self._settings.server.write_ahead_dir))
        server = self._settings.server
        commands = [["gate-worker", "--host", server.host, "--port", str(server.port)]] * server.workers + [["worker"]]
        self._tasks = [asyncio.create_task(self._keep(command), name=command[0]) for command in commands]

    async def stop(self) -> None:
        """Tell every process to finish, and wait for it."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)
        shutil.rmtree(self._metrics_dir, ignore_errors=True)

    async def _keep(self, command: list[str]) -> None:
        while not self._stopping.is_set():
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tollgate.cli",
                *self._arguments,
                *command,
                env=self._environment,
                start_new_session=True,
            )
            ended = asyncio.create_task(process.wait())
            stopping = asyncio.create_task(self._stopping.wait())
            await asyncio.wait({ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            if ended.done():
                _log.error("process.ended", command=command[0], pid=process.pid, status=process.returncode)
                multiprocess.mark_process_dead(process.pid, self._metrics_dir)  # type: ignore[no-untyped-call]
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), RESTART_AFTER_S)
                continue
            with suppress(ProcessLookupError):
                process.terminate()
            await ended


def require_free_port(host: str, port: int) -> None:
    """Raises SettingsError when something listens there. Workers cannot tell: they share the port with anybody."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise SettingsError(f"{host}:{port} cannot be served: {error.strerror}") from error


def require_writable(directory: Path) -> None:
    """Raises SettingsError when the workers could not keep their write-ahead files there."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise SettingsError(f"server.write_ahead_dir: {directory} cannot be written: {error.strerror}") from error


def settings_arguments(file: Path | None) -> list[str]:
    """The command-line arguments that hand the same settings file to another process."""
    return [] if file is None else ["--config", str(file)]


def _stop_signal() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def _calm_the_collector() -> None:
    """Collect garbage less often: requests make much of it and next to no cycles, so that looking finds nothing."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)


def _die_with_parent() -> None:
    """A supervisor that is killed takes its workers with it (on Linux): none serves that nobody keeps."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked to be told
            sys.exit(1)
