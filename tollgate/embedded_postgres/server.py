"""The embedded server itself: start, stop, crash, discard."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Final, Self

import asyncpg

from tollgate.embedded_postgres.errors import EmbeddedPostgresError, PostgresStartFailed, PostgresStopFailed
from tollgate.embedded_postgres.occupancy import drop_stale_pid_file, is_released, take_lock
from tollgate.embedded_postgres.process import KILL_TIMEOUT_S, POLL_INTERVAL_S, has_ended, kill_family, spawn
from tollgate.embedded_postgres.site import Site, delete_site, open_beside, password_of, prepare_site

#: A start after a crash replays the log since the last checkpoint (about ``max_wal_size``, 1 GB, at most).
START_TIMEOUT_S: Final = 60.0
#: initdb takes about a second; the rest is for a busy machine with a slow disk.
INITDB_TIMEOUT_S: Final = 60.0
#: A fast shutdown ends every session and writes a checkpoint.
STOP_TIMEOUT_S: Final = 30.0
CONNECT_TIMEOUT_S: Final = 5.0
#: A port that was free when we looked can be taken before the server binds it.
PORT_ATTEMPTS: Final = 5

SUPERUSER: Final = "postgres"

_SETTINGS: Final = MappingProxyType(
    {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "shared_buffers": "128MB",
        "max_connections": "200",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_checkpoints": "off",
    }
)
_NOT_DURABLE: Final = MappingProxyType({"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"})


class EmbeddedPostgres:
    """A running server that belongs to this process and dies with it.

    Killed with -9 we take the server with us (on Linux; elsewhere it stays, and the next start raises
    ``PostgresInUse``). Ctrl-C in the terminal does not reach it, so that we can finish our work before ``stop``. As a
    context manager it stops on leaving: ``async with await EmbeddedPostgres.start(path) as postgres: ...``
    """

    def __init__(self, site: Site, process: subprocess.Popen[bytes], *, port: int, password: str) -> None:
        self._site = site
        self._process = process
        self._password = password
        self.port = port

    @classmethod
    async def start(
        cls,
        data_dir: Path,
        *,
        port: int | None = None,
        durable: bool = True,
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> Self:
        """Start the server on this data directory, creating the cluster on first use; ready for connections on return.

        ``port`` None takes a free one. ``durable`` False gives up every promise about crashes of the machine, for
        tests that want speed. ``settings`` are Postgres settings by name and win over ours. A crash is recovered from.
        Must be called on the main thread. Raises ``PostgresInUse``, ``PostgresStartFailed``, ``EmbeddedPostgresError``.
        """
        _require_main_thread()
        site = await asyncio.to_thread(prepare_site, data_dir)
        chosen = {**_SETTINGS, **({} if durable else _NOT_DURABLE), **settings}
        lock = await take_lock(site)
        try:
            password = password_of(site)
            if not site.has_cluster():
                await _create_cluster(site, lock, durable=durable)
            drop_stale_pid_file(site.data_dir)
            return await cls._launch(site, port, password, chosen, lock)
        finally:
            os.close(lock)  # the server has inherited it

    @classmethod
    async def _launch(cls, site: Site, port: int | None, password: str, settings: Mapping[str, str], lock: int) -> Self:
        for _attempt in range(PORT_ATTEMPTS):
            chosen_port = port or _free_port()
            argv = [str(site.bin_dir / "postgres"), "-D", str(site.data_dir)]
            for name, value in {**settings, "port": str(chosen_port)}.items():
                argv += ["-c", f"{name}={value}"]
            process = _spawn_logged(site, argv, lock)
            server = cls(site, process, port=chosen_port, password=password)
            try:
                await server._until_ready()
            except PostgresStartFailed as failed:
                if port is None and "could not bind" in failed.log_tail:
                    continue
                raise
            except BaseException:
                await kill_family(process)
                raise
            return server
        raise PostgresStartFailed(f"no free port in {PORT_ATTEMPTS} attempts", site.beside("log"))

    async def _until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        refusal: Exception | None = None
        while time.monotonic() < deadline:
            try:
                ready = await self._answers()
            except (OSError, asyncpg.PostgresError) as error:
                ready, refusal = False, error
            if (status := self._process.poll()) is not None:
                raise PostgresStartFailed(f"Postgres ended with status {status} while starting", self.log_path)
            if ready:
                return
            await asyncio.sleep(POLL_INTERVAL_S)
        await kill_family(self._process)
        raise PostgresStartFailed(f"no answer in {START_TIMEOUT_S:.0f} s ({refusal!r})", self.log_path)

    async def _answers(self) -> bool:
        """Whether what listens on our port is this server: on a port of the caller's choice it could be another."""
        connection = await asyncpg.connect(self.url, timeout=CONNECT_TIMEOUT_S)
        try:
            served = await connection.fetchval("SELECT current_setting('data_directory')")
        finally:
            await connection.close()
        return bool(served == str(self.data_dir))

    @property
    def url(self) -> str:
        """The superuser's connection URL, password included: never log it."""
        return f"postgresql://{SUPERUSER}:{self._password}@127.0.0.1:{self.port}/postgres"

    @property
    def pid(self) -> int:
        """The postmaster's process id, also the id of its session and process group."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the postmaster lives."""
        return self._process.poll() is None

    @property
    def data_dir(self) -> Path:
        """Where the cluster really is: below ``/var/tmp`` when the server's user cannot reach the one asked for."""
        return self._site.data_dir

    @property
    def log_path(self) -> Path:
        """The file with what the server said since its last start."""
        return self._site.beside("log")

    def __repr__(self) -> str:
        return f"<EmbeddedPostgres pid={self.pid} port={self.port} data_dir={str(self.data_dir)!r}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Fast shutdown: sessions are ended, a checkpoint is written. Returns when the server is gone; twice is fine.

        A server that does not leave in time is made to, at the price of a recovery at the next start.
        """
        for how in (signal.SIGINT, signal.SIGQUIT):
            if self._process.poll() is None:
                self._process.send_signal(how)
            if await has_ended(self._process, STOP_TIMEOUT_S):
                return
        await self.crash()

    async def crash(self) -> None:
        """SIGKILL every process of the server at once and wait until the last is gone.

        What the operating system had been given survives: this shows recovery from lost processes, not from lost power.
        ``start`` on the same directory recovers; give it ``port`` to come back under the same URL.
        """
        await kill_family(self._process)
        if not await is_released(self._site, KILL_TIMEOUT_S):
            raise PostgresStopFailed(f"processes of Postgres {self.pid} on {self.data_dir} outlive SIGKILL")

    async def discard(self) -> None:
        """Stop, and delete the cluster with everything beside it, and the link to it where there is one."""
        await self.stop()
        await delete_cluster(self._site.link or self.data_dir)


async def delete_cluster(data_dir: Path) -> None:
    """Delete a cluster that no server uses, wherever it really is, with all that ``start`` put there for it.

    Nothing there is fine. Raises ``PostgresInUse`` for one that a server uses.
    """
    if not await asyncio.to_thread(data_dir.exists):
        await asyncio.to_thread(data_dir.unlink, missing_ok=True)  # a link to what is gone already
        return
    site = await asyncio.to_thread(prepare_site, data_dir)
    lock = await take_lock(site)
    try:
        await asyncio.to_thread(delete_site, site)
    finally:
        os.close(lock)


def _require_main_thread() -> None:
    """PDEATHSIG fires when the *thread* that forked ends: a server forked by a pool's thread would die at random."""
    if threading.current_thread() is not threading.main_thread():
        raise EmbeddedPostgresError("EmbeddedPostgres.start must be called on the main thread")


def _spawn_logged(site: Site, argv: list[str], lock: int) -> subprocess.Popen[bytes]:
    """Start a program that writes to the log and holds the lock for as long as it or a child of it lives."""
    log = open_beside(site, "log", os.O_TRUNC)
    try:
        return spawn(site.account, argv, log=log, keep_open=(lock,))
    finally:
        os.close(log)


async def _create_cluster(site: Site, lock: int, *, durable: bool) -> None:
    """initdb into a draft that is renamed when complete, so that a killed initdb leaves no half cluster."""
    draft = site.beside("initdb")
    if draft.exists():
        shutil.rmtree(draft)
    draft.mkdir(mode=0o700)
    if site.account.switch:
        os.chown(draft, site.account.uid, site.account.gid, follow_symlinks=False)
    argv = [str(site.bin_dir / "initdb"), "-D", str(draft), "--encoding=UTF8", "--locale=C", "--no-instructions"]
    argv += [f"--username={SUPERUSER}", f"--pwfile={site.beside('password')}", "--auth=scram-sha-256"]
    argv += [] if durable else ["--no-sync"]
    process = _spawn_logged(site, argv, lock)
    if not await has_ended(process, INITDB_TIMEOUT_S) or process.returncode:
        await kill_family(process)
        raise PostgresStartFailed(f"initdb failed with status {process.returncode}", site.beside("log"))
    try:
        draft.rename(site.data_dir)
    except OSError as error:
        raise EmbeddedPostgresError(f"{site.data_dir} is there and is not a Postgres cluster") from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
