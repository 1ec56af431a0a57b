"""What the price of an account's requests depends on, besides the price book: its currency, and its plan.

Remembered, so that a request costs no question. A currency never changes, and the ledger refuses a hold that was
priced for a plan that is over; so a memory that is behind costs one more try, never a wrong price.
"""

from collections import OrderedDict

import msgspec

from ledger import Ledger
from ledger.errors import AccountUnknown

MAX_REMEMBERED = 50_000


class Terms(msgspec.Struct, frozen=True):
    """Of one account; of nobody, whose prices are in the programs' own currencies."""

    currency: str | None
    plan: str | None  # None = the list price


class TermsOfAccounts:
    """One per process."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: OrderedDict[str, Terms] = OrderedDict()

    async def of(self, account_id: str) -> Terms:
        """The terms as they were seen last, for a hold. Raises AccountUnknown."""
        known = self._known.get(account_id)
        return known if known is not None else await self.now(account_id)

    async def now(self, account_id: str) -> Terms:
        """The terms as the ledger has them, for what no hold will put right. Raises AccountUnknown."""
        account = await self._ledger.account(account_id)
        if account is None:
            raise AccountUnknown(account_id)
        return self._remember(account_id, Terms(account.currency, account.plan))

    def changed(self, account_id: str, terms: Terms, *, plan: str | None) -> Terms:
        """Remember that the account is on another plan than these terms say."""
        return self._remember(account_id, Terms(terms.currency, plan))

    def _remember(self, account_id: str, terms: Terms) -> Terms:
        self._known[account_id] = terms
        self._known.move_to_end(account_id)
        if len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
        return terms
