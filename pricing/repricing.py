"""What a charge that was made under one program comes to under another."""

from ledger import Microcents
from ledger.charges import StoredCharge
from pricing.circumstances import circumstances
from pricing.price_book import PriceBook, PricedProgram


class Repricing:
    """Prices stored charges by one program, at the exchange rates of their own time."""

    def __init__(self, priced: PricedProgram, book: PriceBook) -> None:
        self.priced = priced
        self._book = book

    def amount(self, charge: StoredCharge) -> Microcents:
        """In microcents of the account's currency. Raises UsageError, and NoExchangeRate."""
        program, event = self.priced.program, charge.event
        known = circumstances(program.keys, at=event.placed_at)
        usage = {**known, **event.usage} if known else event.usage
        if charge.currency == program.currency:
            return program.price(usage).total_microcents
        rate = self._book.exchange_rate(program.currency, charge.currency, event.placed_at)
        return PricedProgram(program, self.priced.ref, rate).charge(usage)
