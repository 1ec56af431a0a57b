"""Processes that run as the server's user, in a session of their own, and cannot outlive us."""

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

POLL_INTERVAL_S: Final = 0.01
#: A killed process is gone at once, unless it sits in an uninterruptible call to a disk.
KILL_TIMEOUT_S: Final = 30.0

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class Account(msgspec.Struct, frozen=True):
    """The system user that the server runs as. ``switch`` is False when that is ourselves."""

    uid: int
    gid: int
    switch: bool


def can_run(account: Account, *argv: str) -> bool:
    """Whether this user can do this. Tried, as modes alone say nothing of ACLs and mount options."""
    if not account.switch:
        return True
    try:
        done = subprocess.run(
            argv, cwd="/", capture_output=True, check=False, user=account.uid, group=account.gid, extra_groups=[]
        )
    except PermissionError:
        return False
    return done.returncode == 0


def spawn(account: Account, argv: Sequence[str], *, log: int, keep_open: tuple[int, ...]) -> subprocess.Popen[bytes]:
    """Start a program as this user, its words going to the descriptor ``log``. The terminal's Ctrl-C does not reach it.

    ``keep_open`` are descriptors that it inherits.
    """
    return subprocess.Popen(
        argv,
        cwd="/",  # ours may be closed to the server's user
        env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        pass_fds=keep_open,
        start_new_session=True,
        user=account.uid if account.switch else None,
        group=account.gid if account.switch else None,
        extra_groups=[] if account.switch else None,
        preexec_fn=_dying_with(os.getpid()),  # runs after the change of user, which would clear the signal
    )


def _dying_with(parent_pid: int) -> Callable[[], None] | None:
    """What a child must do before exec so that the kernel ends it when we end, however that happens."""
    libc = _LIBC
    if libc is None:
        return None

    def arm() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT, 0, 0, 0)
        if os.getppid() != parent_pid:
            os._exit(1)

    return arm


async def has_ended(process: subprocess.Popen[bytes], timeout_s: float) -> bool:
    """Wait for the process. False: it still runs after the timeout."""
    deadline = time.monotonic() + timeout_s
    while process.poll() is None:
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(POLL_INTERVAL_S)
    return True


async def kill_family(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL the postmaster and its children, stopping it first so that it neither starts nor mourns one meanwhile."""
    if process.poll() is None:
        process.send_signal(signal.SIGSTOP)
        for child in _children_of(process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        process.kill()
    await has_ended(process, KILL_TIMEOUT_S)


def _children_of(pid: int) -> list[int]:
    """Process ids, from ``/proc``; empty where there is none: there the children notice the loss by themselves."""
    children = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent_pid = status.read_text().rpartition(")")[2].split()[1]
            if int(parent_pid) == pid:
                children.append(int(status.parent.name))
    return children
