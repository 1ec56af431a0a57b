"""The price book as this process knows it, and the rate of one request: its program, and what is known of its time."""

import asyncio
from datetime import datetime
from typing import Any

import msgspec
import structlog

from inference_proxy.terms import Terms
from ledger import PRICE_BOOK, UNREACHABLE, Ledger, LedgerError, Microcents
from pricing import PriceBook, PricedProgram, PricingError, Usage, UsageBox, circumstances
from pricing.coverage import coverage_of

#: A published price is known to every worker after this long. Prices that must change at one moment everywhere are
#: published ahead of it with an ``effective_from``.
POLL_EVERY_S = 1.0

_log = structlog.get_logger(__name__)


class RequestPrice(msgspec.Struct, frozen=True):
    """What prices one request, from its hold to its settlement."""

    priced: PricedProgram
    circumstances: Usage  # usage keys that no backend counts, as far as the program reads them

    def bound(self, box: UsageBox) -> Microcents:
        """The most that a usage in the box costs, in microcents of the account.

        Raises pricing.UsageError also when the program refuses a usage of the box: it would be served first, and free.
        """
        box = {**box, **self.circumstances} if self.circumstances else box
        bound = self.priced.bound(box)
        gap = coverage_of(self.priced.program).gap(box)
        if gap is not None:
            raise gap
        return bound

    def usage(self, counted: Usage) -> dict[str, Any]:
        """What the backend counted, with the circumstances: the usage as it is charged and stored."""
        return {**counted, **self.circumstances}


class PriceFeed:
    """Keeps ``book`` up with the log."""

    def __init__(self, ledger: Ledger) -> None:
        self.book = PriceBook()
        self._ledger = ledger
        self._seq = 0

    def of_request(
        self, operation: str, model: str, account_id: str | None, terms: Terms, *, at: datetime
    ) -> RequestPrice:
        """What prices the operation for the account at this moment. Raises ModelNotPriced, NoExchangeRate."""
        priced = self.book.resolve(
            model=model,
            operation=operation,
            at=at,
            plan=terms.plan,
            account_id=account_id,
            currency=terms.currency,
        )
        return RequestPrice(priced, circumstances(priced.program.keys, at=at, plan=terms.plan))

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
            except (*UNREACHABLE, LedgerError) as error:
                _log.warning("prices.not_refreshed", error=repr(error))
            except PricingError as error:  # the book contradicts itself; what was known before stays in force
                _log.error("prices.not_refreshed", error=repr(error))
