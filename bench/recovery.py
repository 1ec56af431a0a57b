"""(g) From the kill of a worker with ten thousand open holds until none of them is left.

The worker is a process that holds its lease, places the holds and is killed with -9. The background process that a
server runs finds its lease free in two sweeps and ends its holds one by one; it has been running all the time.
"""

import asyncio
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from bench.commands import grant, place
from bench.measured import Measured
from ledger import Lease, Ledger, OpenAccount, new_id, new_worker_id
from tollgate.app import utc_now
from tollgate.database import connect, create_pool
from tollgate.embedded_postgres import EmbeddedPostgres
from tollgate.migrate import migrate

ACCOUNTS = 100
HOLDS_EACH = 100
HOLDS = ACCOUNTS * HOLDS_EACH
ROUNDS = 3
LOOK_EVERY_S = 0.02


async def measure(directory: Path) -> Measured:
    """Run on a Postgres of its own in ``directory``, durable as in production. Samples are seconds."""
    async with await EmbeddedPostgres.start(directory / "recovery-postgres") as server:
        owner = await asyncpg.connect(server.url)
        await migrate(owner)
        async with _background(directory, server.url):
            seconds = [await _recovery(owner, server.url) for _ in range(ROUNDS)]
        expired = await owner.fetchval("SELECT count(*) FROM events WHERE type = 'hold.expired'")
        await owner.close()
    if expired != ROUNDS * HOLDS:
        raise RuntimeError(f"{expired} of {ROUNDS * HOLDS} holds ended")
    median = statistics.median(seconds)
    return Measured({"recovery_10000_holds_s": median, "recovery_holds_per_s": HOLDS / median}, seconds)


@asynccontextmanager
async def _background(directory: Path, url: str) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tollgate.cli", "worker"),
        cwd=directory,
        env={**os.environ, "TOLLGATE_DATABASE_URL": url},
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def _recovery(owner: asyncpg.Connection, url: str) -> float:
    """Seconds from the kill to the last hold's end."""
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.recovery", url, stdout=asyncio.subprocess.PIPE
    )
    assert worker.stdout is not None  # it is a pipe
    await worker.stdout.readline()
    if await _open_holds(owner) != HOLDS:
        raise RuntimeError("the worker did not place its holds")
    began = time.perf_counter()
    worker.kill()
    while await _open_holds(owner):  # noqa: ASYNC110 - only the database knows
        await asyncio.sleep(LOOK_EVERY_S)
    seconds = time.perf_counter() - began
    await worker.wait()
    return seconds


async def _open_holds(owner: asyncpg.Connection) -> int:
    count: int = await owner.fetchval("SELECT count(*) FROM open_holds")
    return count


async def _be_killed(url: str) -> None:
    """The worker: take a lease, place the holds, say so, and wait for the end."""
    pool = await create_pool(url)
    ledger = await Ledger.open(pool, lambda: connect(url), utc_now)
    lease = Lease(lambda: connect(url), new_worker_id())
    await lease.start()
    await asyncio.gather(*(_place_holds(ledger, new_id("acct"), lease.worker_id) for _ in range(ACCOUNTS)))
    print("placed", flush=True)
    await asyncio.Event().wait()


async def _place_holds(ledger: Ledger, account: str, worker_id: int) -> None:
    await ledger.submit(OpenAccount(stream_id=account, currency="USD"))
    await ledger.submit(grant(account))
    for _ in range(HOLDS_EACH):
        await ledger.submit(place(account, new_id("hold"), worker_id=worker_id, lifetime_s=3600))


if __name__ == "__main__":
    asyncio.run(_be_killed(sys.argv[1]))
