"""What the database itself refuses, whatever the code believes: a check names each guard that is not there."""

import asyncpg
import pytest

from projections import check_books


async def missing(db: asyncpg.Connection) -> set[str]:
    return {found.subject for found in [each async for each in check_books(db)] if "is missing" in str(found)}


async def test_a_check_misses_every_unique_index_of_the_log(admin: asyncpg.Connection) -> None:
    """Each of them refuses something that must never be stored twice; whoever adds one has it checked."""
    unique = await admin.fetch(
        "SELECT i.indexrelid::regclass::text AS name, c.conname AS of_constraint FROM pg_index i"
        " LEFT JOIN pg_constraint c ON c.conindid = i.indexrelid AND c.conrelid = i.indrelid"
        " WHERE i.indrelid = 'events'::regclass AND i.indisunique"
    )
    sound = await missing(admin)
    for index in unique:
        if index["of_constraint"] is None:
            await admin.execute(f"DROP INDEX {index['name']}")
        else:
            await admin.execute(f"ALTER TABLE events DROP CONSTRAINT {index['of_constraint']}")

    assert sound == set()
    assert await missing(admin) == {index["name"] for index in unique}


@pytest.mark.parametrize(
    "change",
    ["DROP TRIGGER events_are_append_only ON events", "ALTER TABLE events DISABLE TRIGGER events_are_append_only"],
)
async def test_a_check_misses_what_keeps_events_for_ever(admin: asyncpg.Connection, change: str) -> None:
    await admin.execute(change)

    assert await missing(admin) == {"events_are_append_only"}
