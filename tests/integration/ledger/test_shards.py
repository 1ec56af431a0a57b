"""Several log shards: each has an order of its own, and an account never leaves its shard."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest_asyncio

from ledger import Ledger, Sweeper
from ledger.reading import shard_of
from tests.conftest import APP_SETTINGS, Clock
from tests.integration.ledger.stored import broken_rules
from tests.strategies import prefixed
from tests.unit.ledger.scenes import create_key, grant, open_account, place, publish, settle
from tollgate.migrate import migrate

SHARDS = 3
COMMANDS = (open_account(), grant(100), create_key(), place("hold_1", 60, key_id="key_1"), settle("hold_1", 7))


@pytest_asyncio.fixture
async def database_url(empty_database_url: str) -> str:
    connection = await asyncpg.connect(empty_database_url)
    await migrate(connection, shards=SHARDS)
    await connection.close()
    return empty_database_url


@pytest_asyncio.fixture
async def admin(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url, server_settings=APP_SETTINGS)
    yield connection
    await connection.close()


async def test_positions_are_gapless_in_each_shard_and_every_account_stays_in_its_own(
    ledger: Ledger, admin: asyncpg.Connection
) -> None:
    async def customer(number: int) -> None:
        for command in COMMANDS:
            await ledger.submit(prefixed(command, f"{number}_"))

    await asyncio.gather(*[customer(number) for number in range(12)], ledger.submit(publish()))

    rows = await admin.fetch("SELECT shard, stream_id, position FROM events")
    assert set(range(SHARDS)) == {row["shard"] for row in rows}
    assert all(shard_of(row["stream_id"], SHARDS) == row["shard"] for row in rows)
    assert await broken_rules(admin) == []
    for number in range(12):
        account = await ledger.account(f"{number}_acct_a")
        assert account is not None
        assert (account.available, account.held) == (93, 0)
        assert len(await ledger.stream(f"{number}_acct_a")) == 5


async def test_a_sweep_ends_the_holds_of_every_shard(
    ledger: Ledger, pool: asyncpg.Pool, clock: Clock, admin: asyncpg.Connection
) -> None:
    for number in range(6):
        for command in (open_account(), grant(100), place("hold_1", 60, worker_id=9)):
            await ledger.submit(prefixed(command, f"{number}_"))
    sweeper = Sweeper(pool, ledger.submit)

    ended = [await sweeper.sweep(clock.now) for _ in range(2)]

    assert ended == [0, 6]
    assert await admin.fetchval("SELECT count(*) FROM open_holds") == 0
    assert await broken_rules(admin) == []


def test_the_shard_of_a_stream_is_fixed_for_ever() -> None:
    expected = {"acct_a": 5, "acct_b": 7, "prices": 1, "acct_01jd3k": 2}

    assert expected == {stream: shard_of(stream, 8) for stream in expected}
