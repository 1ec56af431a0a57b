"""A serving process of its own: ``python -m tests.integration.ledger.process URL NUMBER {share,serve}``.

``share`` waits for the start signal, then submits what all processes submit and what only it does, and says how each
command came out, a JSON line each. ``serve`` holds a lease and serves until it is killed.
"""

import asyncio
import itertools
import json
import sys
from datetime import UTC, datetime
from typing import Any

import asyncpg
import structlog

from ledger import Lease, Ledger, Refused
from tests.conftest import APP_SETTINGS
from tests.unit.ledger.scenes import create_key, grant, open_account, place, settle

#: Advisory lock that the parent holds until all processes wait for it.
START = 4_242
CREDIT = 10_000
SHARED_HOLDS = 10
OWN_HOLDS = 150
HOLD_AMOUNT = 30


async def share(ledger: Ledger, number: int) -> None:
    for commands in (
        [open_account(), grant(CREDIT), create_key()],
        [place(f"shared_{n}", HOLD_AMOUNT, key_id="key_1") for n in range(SHARED_HOLDS)]
        + [place(f"own_{number}_{n}", HOLD_AMOUNT) for n in range(OWN_HOLDS)],
        [settle(f"shared_{n}", 20) for n in range(SHARED_HOLDS)],
    ):
        results = await asyncio.gather(*[outcome(ledger, command) for command in commands])
        for command, result in zip(commands, results, strict=True):
            say([type(command).__name__, getattr(command, "hold_id", ""), result])


async def serve(ledger: Ledger, number: int) -> None:
    async def customer(name: str) -> None:
        for n in itertools.count():
            hold = f"{name}_{n}"
            await ledger.submit(place(hold, HOLD_AMOUNT, worker_id=number))
            await ledger.submit(settle(hold, 1))
            say(["served", hold])

    await asyncio.gather(*[customer(f"hold_{number}_{n}") for n in range(20)])


async def outcome(ledger: Ledger, command: Any) -> str:
    try:
        committed = await ledger.submit(command)
    except Refused as refusal:
        return type(refusal).__name__
    return "replayed" if committed.replayed else "accepted"


def say(what: list[Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def main(url: str, number: int, role: str) -> None:
    async def connect() -> asyncpg.Connection:
        return await asyncpg.connect(url, server_settings=APP_SETTINGS)

    gate = await connect()
    await gate.execute("SELECT pg_advisory_lock_shared($1)", START)
    await gate.close()
    async with asyncpg.create_pool(url, min_size=1, max_size=2, server_settings=APP_SETTINGS) as pool:
        ledger = await Ledger.open(pool, connect, lambda: datetime.now(UTC))
        if role == "serve":
            lease = Lease(connect, number)
            await lease.start()
            await serve(ledger, number)
        await share(ledger, number)
        await ledger.close()


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # stdout is for what we say
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
