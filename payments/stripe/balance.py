"""Stripe's own books of our account: balance transactions, each a movement with its fee, and payouts to our bank.

As in ``api.py``: nothing of the library goes further than this file, and amounts are whole numbers of the currency's
smallest unit. What a transaction is about is its ``reporting_category``; Stripe advises that for finance, because its
``type`` has one word for disputes and other things (docs.stripe.com/reports/reporting-categories).
"""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any

import aiohttp
import msgspec

from payments.errors import ProviderUnavailable
from payments.stripe.api import PAGE, PROVIDER, Currency, Id, StripeConfig, answered, client_of

#: Pages of one list: a hundred thousand movements an hour for a day. More is a list that never ends.
MOST_PAGES = 25_000

_Signed = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
_Word = Annotated[str, msgspec.Meta(max_length=100, pattern=r"^[^\x00]*$")]


class TransactionSource(msgspec.Struct, frozen=True, kw_only=True):
    """What moved the money, a charge, refund, dispute or payout: whose it is, and what became of it."""

    id: Id
    object: _Word
    amount: _Signed = 0  # of a payout below zero where Stripe takes from the bank what the account owes it
    currency: Currency | None = None
    created: int = 0  # seconds since 1970
    payment_intent: Id | None = None
    status: _Word | None = None  # of a payout: pending, in_transit, paid, failed, canceled; paid can still fail


class BalanceTransaction(msgspec.Struct, frozen=True, kw_only=True):
    """One movement. ``amount`` and ``fee`` are signed: what Stripe holds for us grew by the one less the other."""

    id: Id
    amount: _Signed
    fee: _Signed
    currency: Currency
    created: int  # seconds since 1970
    reporting_category: _Word
    source: TransactionSource | Id | None = None


class _Transactions(msgspec.Struct, frozen=True):
    has_more: bool
    data: list[BalanceTransaction]


class StripeBalance:
    """Each method raises ProviderUnavailable or ProviderRefused. Nothing here changes anything at Stripe."""

    def __init__(self, config: StripeConfig, session: aiohttp.ClientSession) -> None:
        self._client = client_of(config, session)

    async def transactions(self, start: datetime, end: datetime) -> list[BalanceTransaction]:
        """All that were made from ``start`` until ``end``, with their sources."""
        created = {"gte": int(start.timestamp()), "lt": int(end.timestamp())}
        return [each async for each in self._all({"created": created, "expand": ["data.source"]})]

    async def transactions_of(self, payout_id: str) -> list[BalanceTransaction]:
        """All that an automatic payout paid out."""
        return [each async for each in self._all({"payout": payout_id})]

    async def payout(self, payout_id: str) -> TransactionSource:
        """As it is now."""
        return await answered(self._client.payouts.retrieve_async(payout_id), TransactionSource)

    async def _all(self, asked: dict[str, Any]) -> AsyncIterator[BalanceTransaction]:
        asked = {**asked, "limit": PAGE}
        for _ in range(MOST_PAGES):
            page = await answered(self._client.balance_transactions.list_async(asked), _Transactions)  # type: ignore[arg-type]
            for each in page.data:
                yield each
            if not page.has_more:
                return
            if not page.data:
                break
            asked["starting_after"] = page.data[-1].id
        raise ProviderUnavailable(PROVIDER, "its list of balance transactions has no end")
