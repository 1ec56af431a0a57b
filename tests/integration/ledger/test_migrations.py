"""Migrations are applied once, in order, by one process at a time, and never change afterwards."""

import asyncio
import secrets

import asyncpg
import pytest

from tests.conftest import APP_SETTINGS, database_at
from tollgate.migrate import Migration, MigrationError, load_migrations, migrate, pending

ALL = [migration.name for migration in load_migrations()]


async def schema_of(db: asyncpg.Connection) -> list[tuple[object, ...]]:
    """Every column, index, constraint and trigger."""
    rows = await db.fetch("""
        SELECT table_name, column_name, data_type || is_nullable FROM information_schema.columns
        WHERE table_schema = 'public' AND table_name <> 'schema_migrations'
        UNION ALL SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace
        UNION ALL SELECT tgrelid::regclass::text, tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
        ORDER BY 1, 2, 3""")
    return [tuple(row) for row in rows]


async def test_migrating_again_changes_nothing(admin: asyncpg.Connection) -> None:
    before, history = await schema_of(admin), await admin.fetch("SELECT * FROM schema_migrations")

    applied = await migrate(admin)

    assert applied == []
    assert before == await schema_of(admin)
    assert history == await admin.fetch("SELECT * FROM schema_migrations")


async def test_an_empty_database_gets_every_migration_in_order(empty_database_url: str) -> None:
    connection = await asyncpg.connect(empty_database_url)

    applied = await migrate(connection)

    assert applied == ALL
    assert [row["name"] for row in await connection.fetch("SELECT name FROM schema_migrations ORDER BY name")] == ALL
    await connection.close()


async def test_two_processes_that_migrate_at_once_both_succeed_and_one_of_them_does_it(empty_database_url: str) -> None:
    connections = [await asyncpg.connect(empty_database_url) for _ in range(3)]

    applied = await asyncio.gather(*[migrate(connection) for connection in connections])

    assert sorted(applied) == [[], [], ALL]
    assert await connections[0].fetchval("SELECT count(*) FROM log_heads") == 1
    for connection in connections:
        await connection.close()


async def test_databases_of_one_server_can_be_migrated_at_once(server: asyncpg.Connection, postgres_url: str) -> None:
    names = [f"tollgate_test_{secrets.token_hex(4)}" for _ in range(3)]
    for name in names:
        await server.execute(f"CREATE DATABASE {name}")
    connections = [await asyncpg.connect(database_at(postgres_url, name)) for name in names]

    applied = await asyncio.gather(*[migrate(connection) for connection in connections])

    assert applied == [ALL] * 3
    for name, connection in zip(names, connections, strict=True):
        await connection.close()
        await server.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def test_a_migration_that_changed_after_it_was_applied_is_refused(admin: asyncpg.Connection) -> None:
    await admin.execute("UPDATE schema_migrations SET checksum = 'of another text' WHERE name = $1", ALL[1])

    with pytest.raises(MigrationError, match=f"{ALL[1]} was changed after it was applied"):
        await migrate(admin)


async def test_a_database_of_a_later_version_is_refused(admin: asyncpg.Connection) -> None:
    await admin.execute("INSERT INTO schema_migrations VALUES ('9999_of_tomorrow.sql', 'x')")

    with pytest.raises(MigrationError, match="9999_of_tomorrow"):
        await migrate(admin)


async def test_after_a_refusal_the_lock_is_free(admin: asyncpg.Connection, database_url: str) -> None:
    await admin.execute("INSERT INTO schema_migrations VALUES ('9999_of_tomorrow.sql', 'x')")
    with pytest.raises(MigrationError):
        await migrate(admin)
    await admin.execute("DELETE FROM schema_migrations WHERE name = '9999_of_tomorrow.sql'")
    other = await asyncpg.connect(database_url)

    async with asyncio.timeout(20):
        applied = await migrate(other)

    assert applied == []
    await other.close()


async def test_the_number_of_shards_counts_when_the_ledger_is_created_and_never_again(empty_database_url: str) -> None:
    connection = await asyncpg.connect(empty_database_url)

    await migrate(connection, shards=3)
    await migrate(connection, shards=5)

    assert [row["shard"] for row in await connection.fetch("SELECT shard FROM log_heads ORDER BY shard")] == [0, 1, 2]
    await connection.close()


async def test_a_serving_process_acts_as_the_application_and_cannot_migrate(database_url: str) -> None:
    connection = await asyncpg.connect(database_url, server_settings=APP_SETTINGS)

    assert await connection.fetchval("SELECT current_user") == "tollgate_app"
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await migrate(connection)
    await connection.close()


def test_only_what_is_missing_is_pending() -> None:
    one, two = Migration("0001_a.sql", "SELECT 1"), Migration("0002_b.sql", "SELECT 2")

    assert [one, two] == pending({}, [one, two])
    assert [two] == pending({one.name: one.checksum}, [one, two])
    assert pending({one.name: one.checksum, two.name: two.checksum}, [one, two]) == []


def test_migrations_are_numbered_without_a_gap() -> None:
    assert [f"{n:04d}" for n in range(1, len(ALL) + 1)] == [name.split("_")[0] for name in ALL]
