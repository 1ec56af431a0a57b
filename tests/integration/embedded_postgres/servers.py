"""An embedded server as its tests handle it, and a process that owns one."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg

from tollgate.embedded_postgres import (
    EmbeddedPostgres,
)

REPOSITORY = Path(__file__).resolve().parents[3]
WAIT_LIMIT_S = 30.0

Start = Callable[..., Awaitable[EmbeddedPostgres]]


async def execute(server: EmbeddedPostgres, query: str) -> object:
    connection = await asyncpg.connect(server.url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


async def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        await asyncio.sleep(0.01)


SLEEPING_OWNER = """
import asyncio, pathlib, sys
from tollgate.embedded_postgres import EmbeddedPostgres

async def main():
    server = await EmbeddedPostgres.start(pathlib.Path(sys.argv[1]))
    print(server.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def spawn_owner(data_dir: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SLEEPING_OWNER, str(data_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=data_dir.parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path]), **environment},
    )


def first_line(owner: subprocess.Popen[str]) -> str:
    assert owner.stdout is not None
    assert owner.stderr is not None
    return owner.stdout.readline() or owner.stderr.read()
