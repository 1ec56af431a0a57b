"""Who holds a data directory: one server at a time, and never a second one beside a dying first."""

import asyncio
import fcntl
import os
import time
from pathlib import Path
from typing import Final

from tollgate.embedded_postgres.errors import PostgresInUse
from tollgate.embedded_postgres.process import POLL_INTERVAL_S
from tollgate.embedded_postgres.site import Site, open_beside

#: A server whose owner was killed is on its way out; Postgres itself kills what has not left after 5 s.
DYING_SERVER_TIMEOUT_S: Final = 15.0
#: After a start that we gave up and killed, the last of its processes may be a moment behind the first.
KILLED_SERVER_TIMEOUT_S: Final = 0.5

_HAS_PROC: Final = Path("/proc/self/stat").exists()


async def take_lock(site: Site) -> int:
    """A descriptor that holds the data directory, for the server to inherit.

    Waits for a server whose owner is gone; raises ``PostgresInUse`` for one whose owner lives.
    """
    descriptor = open_beside(site, "lock")
    began = time.monotonic()
    while not _is_locked_by(descriptor):
        owner = os.pread(descriptor, 20, 0)
        owner_pid = int(owner) if owner.isdigit() else None
        patience_s = KILLED_SERVER_TIMEOUT_S if owner_pid and _is_alive(owner_pid) else DYING_SERVER_TIMEOUT_S
        if time.monotonic() - began > patience_s:
            os.close(descriptor)
            raise PostgresInUse(site.data_dir, pid=_pid_on_file(site.data_dir), owner_pid=owner_pid)
        await asyncio.sleep(POLL_INTERVAL_S)
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


async def is_released(site: Site, timeout_s: float) -> bool:
    """Wait until no process of the server is left. False: one still is."""
    descriptor = open_beside(site, "lock")
    try:
        deadline = time.monotonic() + timeout_s
        while not _is_locked_by(descriptor):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(POLL_INTERVAL_S)
        return True
    finally:
        os.close(descriptor)


def drop_stale_pid_file(data_dir: Path) -> None:
    """Remove a dead server's ``postmaster.pid`` whose number is still taken, by a corpse or by another program.

    Postgres drops one whose process is gone, but takes any process with that number for the server; in a restarted
    container there usually is one. Two servers are still impossible: the key of the shared memory derives from the
    directory. Does nothing where there is no ``/proc``.

    A file without a number is of a server that was killed before it wrote one: ours is the lock, so nobody is writing.
    """
    pid = _pid_on_file(data_dir)
    if pid is None:
        (data_dir / "postmaster.pid").unlink(missing_ok=True)
    if pid is None or not _HAS_PROC:
        return
    if _program_of(pid) in ("postgres", "postmaster"):
        raise PostgresInUse(data_dir, pid=pid, owner_pid=None)
    (data_dir / "postmaster.pid").unlink(missing_ok=True)


def _is_locked_by(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _pid_on_file(data_dir: Path) -> int | None:
    try:
        first_line = (data_dir / "postmaster.pid").read_text().partition("\n")[0]
    except OSError:
        return None
    return int(first_line) if first_line.isdigit() else None


def _program_of(pid: int) -> str | None:
    """Name of the program that runs under this number; None when there is none, or only its unburied corpse."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    name, _, rest = status.partition("(")[2].rpartition(")")
    return None if rest.split()[0] in ("Z", "X") else name


def _is_alive(pid: int) -> bool:
    if _HAS_PROC:
        return _program_of(pid) is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
