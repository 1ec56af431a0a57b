"""Our own tables, through the ledger's pool: the queries of ``queries.sql``, and one error for an absent Postgres."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

import asyncpg

from ledger import LedgerUnavailable, load_queries

#: These queries touch one row by its key. One that takes longer waits for a server that is away.
QUERY_TIMEOUT_S = 5.0

#: What is raised when the server is away, or our connections to it are closed.
_AWAY = (
    OSError,  # includes TimeoutError
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # what asyncpg says of a connection that was ended between two statements
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
)

_queries = load_queries("accounts")

Result = TypeVar("Result")


class Tables:
    """Every method takes a query's name and its parameters, and raises LedgerUnavailable when Postgres is away."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def rows(self, query: str, *parameters: Any) -> list[asyncpg.Record]:
        return await answered(self._pool.fetch(_queries[query], *parameters))

    async def row(self, query: str, *parameters: Any) -> asyncpg.Record | None:
        return await answered(self._pool.fetchrow(_queries[query], *parameters))

    async def value(self, query: str, *parameters: Any) -> Any:
        """The first column of the first row; None when there is no row."""
        return await answered(self._pool.fetchval(_queries[query], *parameters))

    async def run(self, query: str, *parameters: Any) -> None:
        await answered(self._pool.execute(_queries[query], *parameters))


async def answered(asked: Awaitable[Result]) -> Result:
    """What Postgres was asked for; reads of the ledger's states go through here too. Raises LedgerUnavailable."""
    try:
        async with asyncio.timeout(QUERY_TIMEOUT_S):
            return await asked
    except _AWAY as error:
        raise LedgerUnavailable("Postgres does not answer") from error
