"""(a) Holds and settlements per second: groups through the committer against one transaction for each command.

Both through the same driver, over the same SQL functions and tables, with the same number of requests waiting; the
plain way with as many connections as serve it best. Over many accounts, and on one hot account.
"""

import asyncio
import random
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg

from bench.commands import grant, place, settle
from bench.measured import Measured
from ledger import Ledger, OpenAccount, new_id
from ledger.commands import Command
from ledger.committer import Committer
from tollgate.app import utc_now
from tollgate.database import connect, create_pool
from tollgate.embedded_postgres import EmbeddedPostgres
from tollgate.migrate import migrate

ACCOUNTS = 10_000
WAITING = 256
PLAIN_CONNECTIONS = 16
ROUNDS = 3
SECONDS = 4.0

Submit = Callable[[Command], Awaitable[object]]


async def measure(directory: Path) -> Measured:
    """Run on a Postgres of its own in ``directory``, durable as in production. Samples are commands per second."""
    async with await EmbeddedPostgres.start(directory / "ledger-postgres") as server:
        owner = await asyncpg.connect(server.url)
        await migrate(owner)
        pool = await create_pool(server.url)
        ledger = await Ledger.open(pool, lambda: connect(server.url), utc_now)
        accounts = await _accounts(ledger)
        plain = [Committer(lambda: connect(server.url), shard=0, clock=utc_now) for _ in range(PLAIN_CONNECTIONS)]
        for committer in plain:
            committer.start()
        samples: dict[str, list[float]] = {}
        try:
            for _ in range(ROUNDS):
                for name, some in (("many", accounts), ("hot", accounts[:1])):
                    for way, submit in (("group", ledger.submit), ("plain", _one_by_one(plain))):
                        samples.setdefault(f"{way}_{name}", []).append(await _rate(submit, some))
        finally:
            for committer in plain:
                await committer.close()
            await ledger.close()
            await pool.close()
            await owner.close()
        pgbench = _pgbench(server, len(accounts))
        if pgbench is not None:
            samples["pgbench_many"] = [pgbench]
    medians = {
        "ledger_many_accounts_ratio": _ratio(samples, "many"),
        "ledger_hot_account_ratio": _ratio(samples, "hot"),
    }
    return Measured(medians, samples)


def _ratio(samples: dict[str, list[float]], name: str) -> float:
    return statistics.median(
        group / plain for group, plain in zip(samples[f"group_{name}"], samples[f"plain_{name}"], strict=True)
    )


async def _accounts(ledger: Ledger) -> list[str]:
    accounts = [new_id("acct") for _ in range(ACCOUNTS)]
    for start in range(0, ACCOUNTS, 2_000):
        some = accounts[start : start + 2_000]
        await asyncio.gather(*(ledger.submit(OpenAccount(stream_id=account, currency="USD")) for account in some))
        await asyncio.gather(*(ledger.submit(grant(account)) for account in some))
    return accounts


def _one_by_one(committers: list[Committer]) -> Submit:
    """One transaction for each command: a committer that is given one command at a time makes groups of one."""
    free = list(committers)
    waiting: asyncio.Semaphore = asyncio.Semaphore(len(committers))

    async def submit(command: Command) -> object:
        async with waiting:
            committer = free.pop()
            try:
                return await committer.submit(command)
            finally:
                free.append(committer)

    return submit


async def _rate(submit: Submit, accounts: list[str]) -> float:
    done = 0
    stop_at = time.perf_counter() + SECONDS

    async def request() -> None:
        nonlocal done
        while time.perf_counter() < stop_at:
            account, hold_id = random.choice(accounts), new_id("hold")
            await submit(place(account, hold_id))
            await submit(settle(account, hold_id))
            done += 2

    began = time.perf_counter()
    await asyncio.gather(*(request() for _ in range(WAITING)))
    return done / (time.perf_counter() - began)


_PGBENCH_SCRIPT = """
\\set n random(1, {accounts})
BEGIN;
UPDATE bench_accounts SET held = held + 1 WHERE id = :n AND credited - spent - held > 0;
INSERT INTO bench_events (account, payload) VALUES (:n, '{{"type":"hold.placed"}}');
COMMIT;
"""


def _pgbench(server: EmbeddedPostgres, accounts: int) -> float | None:
    """Transactions per second of pgbench, where it is installed: a row lock, an update and an insert, from C."""
    try:
        subprocess.run(["pgbench", "--version"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    url = server.url
    setup = (
        "CREATE TABLE bench_accounts AS SELECT n AS id, 1000000000::bigint AS credited, 0::bigint AS spent,"
        f" 0::bigint AS held FROM generate_series(1, {accounts}) n;"
        "ALTER TABLE bench_accounts ADD PRIMARY KEY (id);"
        "CREATE TABLE bench_events (id bigserial PRIMARY KEY, account int, payload json);"
    )
    subprocess.run(["psql", "--quiet", "--dbname", url, "--command", setup], check=True, capture_output=True)
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as script:
        script.write(_PGBENCH_SCRIPT.format(accounts=accounts))
        script.flush()
        command = ["pgbench", "--no-vacuum", "--client", "32", "--jobs", "1", "--time", str(int(SECONDS))]
        run = subprocess.run([*command, "--file", script.name, url], check=True, capture_output=True, text=True)
    return next(float(line.split()[2]) for line in run.stdout.splitlines() if line.startswith("tps"))
