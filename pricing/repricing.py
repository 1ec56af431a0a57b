"""What a charge that was made under one program comes to under another."""

from datetime import UTC, datetime
from typing import Any

from ledger import Microcents
from ledger.charges import StoredCharge
from pricing.price_book import PriceBook, PricedProgram
from pricing.usage import Usage

#: Usage keys that follow from the time at which a request was let in, UTC.
KEYS_OF_TIME = ("hour", "weekday")


class Repricing:
    """Prices stored charges by one program, at the exchange rates of their own time."""

    def __init__(self, priced: PricedProgram, book: PriceBook) -> None:
        self.priced = priced
        self._book = book
        self._needs_time = not priced.program.keys.keys().isdisjoint(KEYS_OF_TIME)

    def amount(self, charge: StoredCharge) -> Microcents:
        """In microcents of the account's currency. Raises UsageError, and NoExchangeRate."""
        program, event = self.priced.program, charge.event
        usage = _timed(event.usage, event.placed_at) if self._needs_time else event.usage
        if charge.currency == program.currency:
            return program.price(usage).total_microcents
        rate = self._book.rate(program.currency, charge.currency, event.placed_at)
        return PricedProgram(program, self.priced.ref, rate).charge(usage)


def _timed(usage: dict[str, Any], placed_at: datetime) -> Usage:
    """The usage with the hour (0 to 23) and the weekday (1 = Monday to 7) of its hold, unless it says them itself."""
    placed_at = placed_at.astimezone(UTC)
    return {"hour": placed_at.hour, "weekday": placed_at.isoweekday(), **usage}
