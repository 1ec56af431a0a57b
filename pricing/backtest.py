"""Last month under next month's prices: what stored usages would have brought under a candidate program.

Amounts of two currencies are never added up: every sum is of one.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, date

import msgspec

from ledger import Microcents
from ledger.charges import StoredCharge
from ledger.events import ProgramAssigned
from pricing.errors import PricingError
from pricing.price_book import PriceBook
from pricing.repricing import Repricing

#: Reasons against pricing a usage that are told apart; they can quote what the usage says, which has no end.
MAX_REASONS = 100
OTHER_REASONS = "other reasons"


class Revenue(msgspec.Struct):
    """Usages, and what they bring under both programs, in microcents."""

    usages: int = 0
    before: int = 0
    after: int = 0

    @property
    def difference(self) -> Microcents:
        return Microcents(self.after - self.before)


class Unpriced(msgspec.Struct):
    """Usages that the candidate refuses for one reason; they count in no revenue."""

    example: str  # the hold of the first
    usages: int = 0
    before: int = 0


class Backtest:
    """Add the charges of a period; then read what each view makes of them. Keys begin with the currency."""

    def __init__(self, repricing: Repricing) -> None:
        self.totals: defaultdict[str, Revenue] = defaultdict(Revenue)
        self.accounts: defaultdict[tuple[str, str], Revenue] = defaultdict(Revenue)
        self.models: defaultdict[tuple[str, str], Revenue] = defaultdict(Revenue)
        self.days: defaultdict[tuple[str, date], Revenue] = defaultdict(Revenue)
        self.unpriced: dict[tuple[str, str], Unpriced] = {}
        self._repricing = repricing

    def add(self, charges: Iterable[StoredCharge]) -> None:
        """Take in charges, each priced again."""
        for charge in charges:
            before = charge.amount_microcents
            try:
                after = self._repricing.amount(charge)
            except PricingError as error:
                self._refuse(charge, str(error))
                continue
            currency = charge.currency
            for revenue in (
                self.totals[currency],
                self.accounts[currency, charge.account_id],
                self.models[currency, charge.event.model],
                self.days[currency, charge.at.astimezone(UTC).date()],
            ):
                revenue.usages += 1
                revenue.before += before
                revenue.after += after

    @property
    def losers(self) -> list[tuple[tuple[str, str], Revenue]]:
        """The accounts that would have paid more, the one that loses most first."""
        more = [(key, revenue) for key, revenue in self.accounts.items() if revenue.difference > 0]
        return sorted(more, key=lambda pair: (-pair[1].difference, pair[0]))

    @property
    def winners(self) -> list[tuple[tuple[str, str], Revenue]]:
        """The accounts that would have paid less, the one that gains most first."""
        less = [(key, revenue) for key, revenue in self.accounts.items() if revenue.difference < 0]
        return sorted(less, key=lambda pair: (pair[1].difference, pair[0]))

    def _refuse(self, charge: StoredCharge, reason: str) -> None:
        key = (charge.currency, reason)
        if key not in self.unpriced and len(self.unpriced) >= MAX_REASONS:
            key = (charge.currency, OTHER_REASONS)
        refused = self.unpriced.setdefault(key, Unpriced(charge.event.hold_id))
        refused.usages += 1
        refused.before += charge.amount_microcents


def models_priced_by(book: PriceBook, program: str) -> list[str]:
    """The models that some version of the program was ever assigned to, by name."""
    events = (stored.event for stored in book.history(program=program))
    return sorted({event.model for event in events if isinstance(event, ProgramAssigned)})
