"""(d) Events per second of a whole rebuild: every state and every projection."""

import asyncio
import time
from pathlib import Path

import asyncpg

from bench.commands import grant, place, settle
from bench.measured import Measured
from ledger import Ledger, OpenAccount, new_id
from projections import rebuild
from tollgate.app import utc_now
from tollgate.database import connect, create_pool
from tollgate.embedded_postgres import EmbeddedPostgres
from tollgate.migrate import load_migrations, migrate

ACCOUNTS = 500
REQUESTS_EACH = 100


async def measure(directory: Path) -> Measured:
    """Fill a ledger of its own in ``directory``, then rebuild it. The sample is how many events it had."""
    async with await EmbeddedPostgres.start(directory / "rebuild-postgres", durable=False) as server:
        owner = await asyncpg.connect(server.url)
        await migrate(owner)
        pool = await create_pool(server.url)
        ledger = await Ledger.open(pool, lambda: connect(server.url), utc_now)
        await asyncio.gather(*(_history(ledger, new_id("acct")) for _ in range(ACCOUNTS)))
        await ledger.close()
        await pool.close()
        began = time.perf_counter()
        rebuilt = await rebuild(owner, [migration.sql for migration in load_migrations()], lambda done, total: None)
        seconds = time.perf_counter() - began
        await owner.close()
    return Measured({"rebuild_events_per_s": rebuilt.events / seconds}, rebuilt.events)


async def _history(ledger: Ledger, account: str) -> None:
    await ledger.submit(OpenAccount(stream_id=account, currency="USD"))
    await ledger.submit(grant(account))
    for _ in range(REQUESTS_EACH):
        hold_id = new_id("hold")
        await ledger.submit(place(account, hold_id))
        await ledger.submit(settle(account, hold_id))
