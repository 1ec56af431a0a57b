"""(d) Events per second of a whole rebuild: every state and every projection."""

import asyncio
import time
from pathlib import Path

import asyncpg
import msgspec

from bench.ledger import CREDIT, PRICE
from ledger import GrantCredit, Ledger, Microcents, OpenAccount, PlaceHold, SettleHold, new_id
from projections import rebuild
from tollgate.app import utc_now
from tollgate.database import connect, create_pool
from tollgate.embedded_postgres import EmbeddedPostgres
from tollgate.migrate import load_migrations, migrate

ACCOUNTS = 500
REQUESTS_EACH = 100


class RebuildResult(msgspec.Struct):
    events_per_s: float
    events: int


async def measure(directory: Path) -> RebuildResult:
    """Fill a ledger of its own in ``directory``, then rebuild it."""
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
    return RebuildResult(events_per_s=rebuilt.events / seconds, events=rebuilt.events)


async def _history(ledger: Ledger, account: str) -> None:
    await ledger.submit(OpenAccount(stream_id=account, currency="USD"))
    await ledger.submit(
        GrantCredit(
            stream_id=account, amount_microcents=CREDIT, reason="bench", granted_by="bench", idempotency_key="bench"
        )
    )
    for _ in range(REQUESTS_EACH):
        hold_id = new_id("hold")
        await ledger.submit(
            PlaceHold(
                stream_id=account,
                hold_id=hold_id,
                amount_microcents=Microcents(1_000_000),
                operation="chat.completions",
                model="bench",
                price=PRICE,
                worker_id=1,
                lifetime_s=600,
            )
        )
        usage = {"input_tokens": 412, "cached_input_tokens": 0, "output_tokens": 64}
        await ledger.submit(
            SettleHold(stream_id=account, hold_id=hold_id, amount_microcents=Microcents(10_000), usage=usage)
        )
