"""Postgres, two backends, a Stripe, gate workers and a background process, with a link of our own on every way to a
backend and to Postgres."""

import asyncio
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import msgspec

from tests.acceptance.client import Http
from tests.acceptance.running_demo import READY_WITHIN_S, Finished, free_port, until
from tests.faults.furnishing import Payer, furnish
from tests.faults.network import BackendLink, Link
from tests.faults.processes import ROOT, KeptProcess
from tests.faults.stepping_worker import write_offset
from tollgate.embedded_postgres import EmbeddedPostgres
from tollgate.migrate import migrate

#: A backend that says nothing for so long is given up. Longer than a hold may outlive its request, so that a hold
#: that waits for a silent backend on behalf of nobody is found.
SILENCE_TIMEOUT_S = 15
TOKEN_LATENCY_MS = 15
#: ``tollgate check`` of a ledger as small as ours.
CHECK_WITHIN_S = 60.0
BACKENDS = 2
WRITE_AHEAD = "write-ahead"  # directory
#: Of the simulated Stripe, which no money can be got with.
STRIPE_API_KEY, STRIPE_WEBHOOK_SECRET = "sk_test_faults", "whsec_faults"

_SETTINGS = Template("""
[server]
port = $port
drain_s = 20
write_ahead_dir = "$write_ahead"

[proxy]
forward_headers = ["x-simulate", "x-load-number"]

[[models]]
id = "qwen3-32b"
context_length = 32768
max_output_tokens = 2048
default_output_tokens = 512

[[models]]
id = "deepseek-v3"
context_length = 32768
max_output_tokens = 2048
default_output_tokens = 512
hold_slice_tokens = 8 # so that the hold of nearly every stream has to grow
""")
_STRIPE = Template("""
[payments.stripe]
api_url = "$url"
success_url = "http://127.0.0.1/"
""")
_BACKEND = Template("""
[[backends]]
name = "$name"
url = "http://127.0.0.1:$port"
models = ["qwen3-32b", "deepseek-v3"]
silence_timeout_s = $silence
""")


class Worker:
    """A gate worker, its way to Postgres, and its clock."""

    def __init__(self, process: KeptProcess, postgres: Link, clock: Path) -> None:
        self.process = process
        self.postgres = postgres
        self._clock = clock

    def step_clock(self, seconds: int) -> None:
        """Set it off by so many seconds; 0 sets it right."""
        write_offset(self._clock, seconds)


class Backend:
    """A simulated backend, the way of the workers to it, and our own."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, link: BackendLink, journal: Path) -> None:
        self.process = process
        self.link = link
        self.journal = journal
        self.http = Http(f"http://127.0.0.1:{port}")

    async def wish(self, **faults: Any) -> None:
        """Let these faults stand for every request; none heals."""
        answer = await self.http.post("/_simulator/faults", faults)
        assert answer.status == 200, answer

    async def is_idle(self) -> bool:
        running: list[Any] = (await self.http.get("/_simulator/requests?running=1")).json
        return not running

    async def close(self) -> None:
        await self.http.close()
        await _end(self.process)


class Installation:
    """All of it, running. Made by ``installed``."""

    background: KeptProcess
    stripe_url: str
    background_postgres: Link

    def __init__(self, directory: Path, postgres: EmbeddedPostgres) -> None:
        self.directory = directory
        self.postgres = postgres
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.secret = secrets.token_urlsafe(32)
        self.settings_file = directory / "tollgate.toml"
        self.backends: list[Backend] = []
        self.workers: list[Worker] = []
        self.payers: list[Payer] = []
        self._restarting = asyncio.Lock()

    def url_through(self, link: Link) -> str:
        """Postgres's URL by way of a link."""
        parts = urlsplit(self.postgres.url)
        return urlunsplit(parts._replace(netloc=parts.netloc.replace(f":{self.postgres.port}", f":{link.port}")))

    async def restart_postgres(self, *, crash: bool) -> None:
        """Stop or kill the server and start it again on the same port; two at once come one after the other."""
        async with self._restarting:
            await (self.postgres.crash() if crash else self.postgres.stop())
            self.postgres = await EmbeddedPostgres.start(self.directory / "postgres", port=self.postgres.port)

    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """Ask Postgres as its superuser, past every link."""
        connection = await asyncpg.connect(self.postgres.url, server_settings={"timezone": "UTC"})
        try:
            return list(await connection.fetch(query, *arguments))
        finally:
            await connection.close()

    async def check(self) -> Finished:
        """``tollgate check``."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tollgate.cli", "--config", str(self.settings_file), "check"),
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TOLLGATE_DATABASE_URL": self.postgres.url},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), CHECK_WITHIN_S)
        assert process.returncode is not None
        return Finished(process.returncode, out.decode(), err.decode())

    @property
    def write_ahead_files(self) -> list[Path]:
        """Of living workers, one each, and what is still to be recovered of dead ones."""
        return sorted((self.directory / WRITE_AHEAD).iterdir())

    def keep_logs(self, directory: Path) -> None:
        """Copy what every process printed, and the journals, to where they outlive the installation."""
        directory.mkdir(parents=True, exist_ok=True)
        for file in (*self.directory.glob("*.log"), *self.directory.glob("*.jsonl")):
            shutil.copy(file, directory)

    def heal(self) -> None:
        """End every fault of the network and of clocks."""
        for link in (self.background_postgres, *(backend.link for backend in self.backends)):
            link.heal()
        for worker in self.workers:
            worker.postgres.heal()
            worker.step_clock(0)


@asynccontextmanager
async def installed(*, workers: int) -> AsyncIterator[Installation]:
    """A fresh installation in a place of its own. Nothing of it is left afterwards."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tollgate-faults-")))
        os.chmod(directory, 0o711)  # the database server's own user must be able to reach its data
        postgres = await EmbeddedPostgres.start(directory / "postgres")
        installation = Installation(directory, postgres)
        stack.push_async_callback(_discard, installation)
        await _prepare_database(installation)
        installation.payers = await furnish(installation.postgres.url, installation.secret.encode())
        for number in range(BACKENDS):
            installation.backends.append(await _start_backend(directory, number, stack))
        installation.stripe_url = await _start_stripe(installation, stack)
        _write_settings(installation)
        await _start_processes(installation, workers, stack)
        yield installation


async def _discard(installation: Installation) -> None:
    await installation.postgres.discard()


async def _prepare_database(installation: Installation) -> None:
    connection = await asyncpg.connect(installation.postgres.url, server_settings={"timezone": "UTC"})
    try:
        await migrate(connection)
    finally:
        await connection.close()


def _write_settings(installation: Installation) -> None:
    text = _SETTINGS.substitute(port=installation.port, write_ahead=installation.directory / WRITE_AHEAD)
    for number, backend in enumerate(installation.backends):
        text += _BACKEND.substitute(name=f"gpu-{number}", port=backend.link.port, silence=SILENCE_TIMEOUT_S)
    text += _STRIPE.substitute(url=installation.stripe_url)
    installation.settings_file.write_text(text)


async def _start_backend(directory: Path, number: int, stack: AsyncExitStack) -> Backend:
    journal = directory / f"backend-{number}.jsonl"
    process, port = await _simulation(
        directory,
        *("simulated_backend", "--models", "qwen3-32b,deepseek-v3"),
        *("--token-latency-ms", str(TOKEN_LATENCY_MS), "--journal", str(journal)),
    )
    link = BackendLink(port)
    await link.open()
    backend = Backend(process, port, link, journal)
    stack.push_async_callback(backend.close)
    stack.push_async_callback(link.close)
    return backend


async def _start_stripe(installation: Installation, stack: AsyncExitStack) -> str:
    process, port = await _simulation(
        installation.directory,
        *("simulated_stripe", "--api-key", STRIPE_API_KEY, "--webhook-secret", STRIPE_WEBHOOK_SECRET),
        *("--webhook-url", f"{installation.url}/v1/topup/stripe/webhook"),
    )
    stack.push_async_callback(_end, process)
    return f"http://127.0.0.1:{port}"


async def _simulation(directory: Path, module: str, *arguments: str) -> tuple[asyncio.subprocess.Process, int]:
    """A program that simulates others, and its port."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, "--port", "0", "--die-with-parent", *arguments),
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None  # it is a pipe
    return process, msgspec.json.decode(await process.stdout.readline(), type=dict[str, int])["port"]


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    await process.wait()


async def _start_processes(installation: Installation, workers: int, stack: AsyncExitStack) -> None:
    for number in range(workers):
        link = await _link_to_postgres(installation, stack)
        clock = installation.directory / f"clock-{number}"
        write_offset(clock, 0)
        process = _kept(
            installation,
            f"worker-{number}",
            ["tests.faults.stepping_worker", "--clock-offset", str(clock), "--config", str(installation.settings_file)],
            link,
        )
        installation.workers.append(Worker(process, link, clock))
    installation.background_postgres = await _link_to_postgres(installation, stack)
    installation.background = _kept(
        installation,
        "background",
        ["tollgate.cli", "--config", str(installation.settings_file), "worker"],
        installation.background_postgres,
    )
    processes = [installation.background, *(worker.process for worker in installation.workers)]
    for process in processes:
        process.start()
    stack.push_async_callback(_stop_all, processes)
    await until(lambda: _all_serve(installation), within_s=READY_WITHIN_S)


async def _link_to_postgres(installation: Installation, stack: AsyncExitStack) -> Link:
    link = Link(installation.postgres.port)
    await link.open()
    stack.push_async_callback(link.close)
    return link


def _kept(installation: Installation, name: str, arguments: list[str], link: Link) -> KeptProcess:
    environment = {
        "TOLLGATE_DATABASE_URL": installation.url_through(link),
        "TOLLGATE_SECRET": installation.secret,
        "TOLLGATE_STRIPE_API_KEY": STRIPE_API_KEY,
        "TOLLGATE_STRIPE_WEBHOOK_SECRETS": STRIPE_WEBHOOK_SECRET,
    }
    return KeptProcess(name, arguments, environment, installation.directory)


async def _all_serve(installation: Installation) -> bool:
    return all(
        worker.process.log.exists() and b'"worker.started"' in worker.process.log.read_bytes()
        for worker in installation.workers
    )


async def _stop_all(processes: list[KeptProcess]) -> None:
    await asyncio.gather(*(process.stop() for process in processes))
