"""Who compares Stripe's books with ours, in the tests of that."""

from datetime import UTC, date, datetime, timedelta

from payments.reconciliation import Reconciler, Report, days_of
from simulated_stripe.objects import Object

from .conftest import Payer, Till

TODAY = days_of(date(2026, 11, 21), date(2026, 11, 22), UTC)


class Finance:
    """Who compares the books, on the day after."""

    def __init__(self, till: Till) -> None:
        self.till = till
        self.reconciler = Reconciler(till.ledger, till.clock)
        self.balance = till.stripe.balance.balance

    async def report(self, *, day: date = date(2026, 11, 21), days: int = 1) -> Report:
        self.till.clock.now = max(self.till.clock.now, datetime(2026, 11, 22, 1, tzinfo=UTC))
        period = days_of(day, day + timedelta(days=days), UTC)
        return await self.reconciler.reconcile(self.till.road.statements, period)

    async def breaks(self) -> list[tuple[str, str, str]]:
        return [(item.status, item.kind, item.reference) for item in (await self.report()).breaks]

    async def credited(self, payer: Payer, cents: int = 1000) -> Object:
        """A payment that both sides have."""
        payment = await self.till.paid(payer, cents)
        await self.tell()
        return payment

    async def tell(self, *types: str, times: int = 1) -> None:
        for _ in range(times):
            for event in self.till.events(*types):
                assert (await self.till.tell(event)).status == 200

    def transaction_of(self, source: str) -> Object:
        return next(each for each in self.till.books.all_of("balance_transaction", source=source))
