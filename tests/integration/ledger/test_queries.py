"""Every named query of every room is one that the migrated schema understands."""

from pathlib import Path

import asyncpg
import pytest

from ledger import load_queries

ROOT = Path(__file__).parents[3]
#: Rooms and parts of rooms, as packages.
ROOMS = sorted(
    str(path.parent.relative_to(ROOT)).replace("/", ".")
    for depth in ("*", "*/*")
    for path in ROOT.glob(f"{depth}/queries.sql")
)


@pytest.mark.parametrize("room", ROOMS)
async def test_every_query_of_a_room_prepares_on_the_migrated_schema(pool: asyncpg.Pool, room: str) -> None:
    queries = load_queries(room)

    refused = {}
    async with pool.acquire() as connection:
        for name, query in queries.items():
            try:
                await connection.prepare(query)
            except asyncpg.PostgresError as error:
                refused[name] = str(error)

    assert queries
    assert refused == {}


@pytest.mark.parametrize("room", ROOMS)
def test_every_query_of_a_room_is_used(room: str) -> None:
    package = ROOT / room.replace(".", "/")
    code = "\n".join(path.read_text() for path in package.rglob("*.py"))

    unused = {name for name in load_queries(room) if f'"{name}"' not in code}

    assert set() == unused


def test_the_ledger_is_one_of_the_rooms_with_queries() -> None:
    assert "ledger" in ROOMS
