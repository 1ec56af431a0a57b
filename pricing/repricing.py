"""What a charge that was made under one program comes to under another."""

from decimal import Decimal

from ledger import Microcents
from ledger.charges import StoredCharge
from pricing.circumstances import circumstances
from pricing.price_book import PriceBook, PricedProgram


class Repricing:
    """Prices stored charges by one program, on the plans and at the exchange rates of their holds."""

    def __init__(self, priced: PricedProgram, book: PriceBook) -> None:
        self.priced = priced
        self._book = book

    def amount(self, charge: StoredCharge) -> Microcents:
        """In microcents of the account's currency. Raises UsageError, and NoExchangeRate."""
        program, event = self.priced.program, charge.event
        known = circumstances(program.keys, at=event.placed_at, plan=charge.plan)
        usage = {**known, **event.usage} if known else event.usage
        if charge.currency == program.currency:
            return program.price(usage).total_microcents
        return PricedProgram(program, self.priced.ref, self._exchange_rate(charge)).charge(usage)

    def _exchange_rate(self, charge: StoredCharge) -> Decimal | None:
        """The one that the hold was converted at; that of the book then, for a program of another currency."""
        currency, event = self.priced.program.currency, charge.event
        if charge.exchange_rate is not None:
            charged = self._book.program(event.price.program, event.price.version).program
            if charged.currency == currency:
                return charge.exchange_rate
        return self._book.exchange_rate(currency, charge.currency, event.placed_at)
