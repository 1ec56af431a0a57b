"""Brings a database to the schema of this version: the files of ``migrations/``, in order, once each."""

import hashlib
from importlib import resources

import asyncpg
import msgspec

#: Advisory lock that two migrating processes meet at; any number nobody else takes ("tollgate" in ASCII).
MIGRATION_LOCK = 0x746F6C6C67617465

_CREATE_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    name text PRIMARY KEY,
    checksum text NOT NULL, -- hex SHA-256 of the file
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""
_CREATE_SHARDS = "INSERT INTO log_heads (shard) SELECT generate_series(0, $1::int - 1) ON CONFLICT DO NOTHING"


class MigrationError(Exception):
    """The database's history and the files do not fit together. Nothing was changed."""


class Migration(msgspec.Struct, frozen=True):
    """One file: its name begins with its number."""

    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def load_migrations() -> list[Migration]:
    """All migrations of this version, in order."""
    files = (file for file in resources.files("migrations").iterdir() if file.name.endswith(".sql"))
    return sorted((Migration(file.name, file.read_text()) for file in files), key=lambda migration: migration.name)


async def migrate(connection: asyncpg.Connection, *, shards: int = 1) -> list[str]:
    """Apply what is missing; returns the names applied.

    ``shards`` counts when the ledger is created, and never again. Raises MigrationError when a file that was applied
    has changed since, or is gone.
    """
    await connection.execute("SELECT pg_advisory_lock($1)", MIGRATION_LOCK)
    try:
        async with connection.transaction():
            await connection.execute(_CREATE_TABLE)
            rows = await connection.fetch("SELECT name, checksum FROM schema_migrations")
            missing = pending({row["name"]: row["checksum"] for row in rows}, load_migrations())
            await apply(connection, missing)
            if not rows:
                await connection.execute(_CREATE_SHARDS, shards)
        return [migration.name for migration in missing]
    finally:
        await connection.execute("SELECT pg_advisory_unlock($1)", MIGRATION_LOCK)


def pending(applied: dict[str, str], migrations: list[Migration]) -> list[Migration]:
    """The migrations that are not applied yet. Raises MigrationError when those applied are not ours."""
    ours = {migration.name: migration.checksum for migration in migrations}
    for name, checksum in applied.items():
        if name not in ours:
            raise MigrationError(f"the database has migration {name}, which this version does not know")
        if ours[name] != checksum:
            raise MigrationError(f"migration {name} was changed after it was applied; write a new one instead")
    return [migration for migration in migrations if migration.name not in applied]


async def apply(connection: asyncpg.Connection, migrations: list[Migration]) -> None:
    """Run the files and remember them, in the caller's transaction."""
    for migration in migrations:
        await connection.execute(migration.sql)
        await connection.execute(
            "INSERT INTO schema_migrations (name, checksum) VALUES ($1, $2)", migration.name, migration.checksum
        )
