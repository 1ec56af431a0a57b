"""``tollgate demo`` as a process of its own, and everything that an outsider can ask of it: HTTP, SQL, the command
line, the process table, and the backend's journal of what it really generated."""

import asyncio
import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import asyncpg
import msgspec

from tests.acceptance.client import Answer, Http

#: How long a condition may take to become true before the test gives up. Never a promise of ours, only patience.
PATIENCE_S = 30.0
READY_WITHIN_S = 60.0
PR_SET_PDEATHSIG = 1

Value = TypeVar("Value")


class Information(msgspec.Struct, frozen=True):
    """``.tollgate/demo.json``."""

    base_url: str
    server_url: str
    api_key: str
    service_token: str
    account_id: str
    email: str
    password: str
    models: list[str]
    backend_url: str
    pid: int
    stripe_url: str | None = None  # of a demo with payments
    alipay_url: str | None = None
    chain_url: str | None = None
    chain_token: str | None = None


class Generated(msgspec.Struct, frozen=True):
    """The backend's own record of one request: the ground truth that a bill is held against."""

    request_id: str
    status: int
    outcome: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    tokens_written: int


class Finished(msgspec.Struct, frozen=True):
    """A command that ran to its end."""

    status: int
    out: str
    err: str


class Directory:
    """A place for a demo that the embedded server's own user can reach, and that can be searched for leavings."""

    def __init__(self, path: Path) -> None:
        self.home = path / "home"  # the demo's working directory
        self.temporary = path / "tmp"  # its TMPDIR
        self.out = path / "out"
        for directory in (path, self.home, self.temporary):
            directory.mkdir(exist_ok=True)
            directory.chmod(0o711)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "TMPDIR": str(self.temporary)}

    def processes(self) -> list[str]:
        """The command lines of all living processes that work here."""
        found = []
        for process in Path("/proc").iterdir():
            if not process.name.isdigit() or int(process.name) == os.getpid():
                continue
            try:
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                place = str((process / "cwd").readlink())
            except OSError:  # it has just ended
                continue
            if str(self.home) in command or place.startswith(str(self.home)):
                found.append(f"{process.name} {command}")
        return found

    def leavings(self) -> list[str]:
        """Every file that is left."""
        return [str(path) for place in (self.home, self.temporary) for path in sorted(place.rglob("*"))]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def end_with_the_tests() -> None:
    """A test run that is killed leaves no demo behind (on Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


@asynccontextmanager
async def place_for_demo() -> AsyncIterator[Directory]:
    with tempfile.TemporaryDirectory(prefix="tollgate-acceptance-") as path:
        yield Directory(Path(path))


class RunningDemo:
    """One demo and its clients."""

    def __init__(self, directory: Directory, process: asyncio.subprocess.Process, port: int, *, workers: int) -> None:
        self.directory = directory
        self.process = process
        self.port = port
        self.workers = workers

    @classmethod
    async def start(cls, directory: Directory, *, workers: int = 4, flags: Sequence[str] = ()) -> Self:
        port = free_port()
        with directory.out.open("wb") as out:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tollgate.cli", "demo", "--port", str(port), "--workers", str(workers)),
                *flags,
                cwd=directory.home,
                env=directory.environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C of the test run is not the demo's
                preexec_fn=end_with_the_tests,
            )
        demo = cls(directory, process, port, workers=workers)
        try:
            await demo._until_ready()
        except BaseException:
            await demo.kill()
            raise
        return demo

    async def _until_ready(self) -> None:
        await until(self._announced, within_s=READY_WITHIN_S)
        self.information = msgspec.json.decode((self.files / "demo.json").read_bytes(), type=Information)
        self.postgres_url = (self.files / "demo" / "postgres.url").read_text()
        self.http = Http(self.information.server_url)
        self.backend = Http(self.information.backend_url)

    async def _announced(self) -> bool:
        if self.process.returncode is not None:
            raise AssertionError(f"the demo ended with {self.process.returncode}:\n{self.output}")
        # Every worker has to be up: the port answers as soon as one is.
        return "leaves nothing behind" in self.output and self.output.count('"worker.started"') >= self.workers

    @property
    def files(self) -> Path:
        return self.directory.home / ".tollgate"

    @property
    def settings_file(self) -> Path:
        return self.files / "demo" / "tollgate.toml"

    @property
    def output(self) -> str:
        """All that it printed so far."""
        return self.directory.out.read_text(errors="replace")

    # --- its life

    async def stop(self) -> int:
        """Ctrl-C; gives the exit status."""
        await self._close_clients()
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGINT)
        return await asyncio.wait_for(self.process.wait(), PATIENCE_S)

    async def kill(self) -> None:
        """Whatever it takes."""
        await self._close_clients()
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def _close_clients(self) -> None:
        for name in ("http", "backend"):
            if hasattr(self, name):
                await getattr(self, name).close()

    def children(self, word: str) -> list[int]:
        """The processes that the demo started and whose command line has this word."""
        found = []
        for process in Path("/proc").iterdir():
            if not process.name.isdigit():
                continue
            try:
                status = (process / "stat").read_text()
                command = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            parent = int(status.rpartition(")")[2].split()[1])
            if parent == self.process.pid and word.encode() in command:
                found.append(int(process.name))
        return sorted(found)

    @property
    def gate_workers(self) -> list[int]:
        return self.children("gate-worker")

    async def until_workers_serve(self, *, instead_of: list[int]) -> None:
        """Wait until the supervisor has replaced these workers."""

        async def replaced() -> bool:
            workers = self.gate_workers
            return len(workers) == self.workers and not set(workers) & set(instead_of) and all_are_up(workers)

        def all_are_up(workers: list[int]) -> bool:
            return all(f'"pid":{worker},"port"' in self.output for worker in workers)

        await until(replaced)

    @property
    def postmaster(self) -> int:
        """The process of the embedded Postgres that the others are children of; 0 while it is only starting."""
        file = self.files / "demo" / "postgres" / "postmaster.pid"
        words = file.read_text().split() if file.exists() else []
        return int(words[0]) if words else 0

    # --- what may be asked of it

    async def command(self, *arguments: str) -> Finished:
        """Run ``tollgate …`` beside it, in its directory and with its settings."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tollgate.cli", "--config", str(self.settings_file), *arguments),
            cwd=self.directory.home,
            env=self.directory.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
        assert process.returncode is not None
        return Finished(process.returncode, out.decode(), err.decode())

    async def assert_books_in_order(self) -> None:
        checked = await self.command("check")
        assert (checked.out, checked.err, checked.status) == ("the books are in order\n", "", 0)

    @asynccontextmanager
    async def sql(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection as the owner of the schema: what a person with psql could do."""
        connection = await asyncpg.connect(self.postgres_url, server_settings={"timezone": "UTC"})
        try:
            yield connection
        finally:
            await connection.close()

    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        async with self.sql() as connection:
            return list(await connection.fetch(query, *arguments))

    async def count_events(self) -> int:
        """Of all accounts: a refusal must not be written anywhere."""
        rows = await self.fetch("SELECT count(*) AS events FROM events")
        return int(rows[0]["events"])

    async def generated(self, request_id: str) -> Generated | None:
        """What the backend did for a request, once it is over; None when it never heard of it."""

        async def ended() -> Answer | None:
            answer = await self.backend.get(f"/_simulator/requests/{request_id}")
            return answer if answer.status == 404 or answer.json["ended_at"] is not None else None

        answer = await until(ended)
        return None if answer.status == 404 else msgspec.json.decode(answer.body, type=Generated)

    async def count_forwarded(self) -> int:
        """How many requests the backend has seen so far, running ones too."""
        ended = (await self.backend.get("/_simulator/requests")).json
        running = (await self.backend.get("/_simulator/requests?running=1")).json
        return len(ended) + len(running)

    @property
    def operator(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.information.service_token}"}

    async def grant(self, account_id: str, cents: Any) -> Answer:
        answer = await self.http.post(
            "/v1/admin/grants",
            {"account_id": account_id, "amount_cents": cents, "reason": "acceptance"},
            headers={**self.operator, "Idempotency-Key": secrets.token_hex(8)},
        )
        assert answer.status == 201, answer
        return answer


async def until(condition: Callable[[], Awaitable[Value]], *, within_s: float = PATIENCE_S) -> Value:
    """Ask again until the answer is true; gives that answer."""
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + within_s
    while True:
        if value := await condition():
            return value
        assert loop.time() < give_up_at, f"{condition} was not true within {within_s} s"
        await asyncio.sleep(0.02)
