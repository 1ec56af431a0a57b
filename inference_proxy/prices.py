"""The price book as this process knows it: the stream of price events, followed."""

import asyncio

import asyncpg
import structlog

from ledger import PRICE_BOOK, Ledger, LedgerError
from pricing import PriceBook

#: A published price is known to every worker after this long. Prices that must change at one moment everywhere are
#: published ahead of it with an ``effective_from``.
POLL_EVERY_S = 1.0

_log = structlog.get_logger(__name__)


class PriceFeed:
    """Keeps ``book`` up with the log."""

    def __init__(self, ledger: Ledger) -> None:
        self.book = PriceBook()
        self._ledger = ledger
        self._seq = 0

    async def refresh(self) -> None:
        """Take in what was published since the last time."""
        for stored in await self._ledger.stream(PRICE_BOOK, after_seq=self._seq):
            self.book.apply(stored)
            self._seq = stored.seq

    async def follow(self) -> None:
        """Refresh until cancelled. While Postgres is away the known prices stay in force."""
        while True:
            await asyncio.sleep(POLL_EVERY_S)
            try:
                await self.refresh()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, LedgerError, TimeoutError) as error:
                _log.warning("prices.not_refreshed", error=repr(error))
