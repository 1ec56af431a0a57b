"""What Stripe tells of payouts: booked as they are now, with the fees of what they paid out."""

from ledger import Ledger
from ledger.errors import PayoutOver
from payments.errors import Break, NotAtProvider
from payments.outcomes import Outcome
from payments.provider_events import book_provider_events
from payments.stripe.balance import StripeBalance
from payments.stripe.statement import commands_of, fees_of

#: From this on Stripe can say what an automatic payout paid out.
_COMPLETED = "payout.reconciliation_completed"


class PayoutBooking:
    """Books notifications of payouts; what a reconciliation booked before is booked."""

    def __init__(self, ledger: Ledger, balance: StripeBalance) -> None:
        self._ledger = ledger
        self._balance = balance

    async def book(self, event_type: str, payout_id: str) -> Outcome:
        """Raises as ``StripeBooking.book``."""
        try:
            payout = await self._balance.payout(payout_id)
        except NotAtProvider as missing:
            raise Break("unknown", str(missing)) from missing
        commands = commands_of(payout)
        if event_type == _COMPLETED:
            commands += fees_of(await self._balance.transactions_of(payout_id))
        for refusal in await book_provider_events(self._ledger, commands):
            if not isinstance(refusal, PayoutOver):  # it failed while we were asking
                raise Break(type(refusal).__name__, str(refusal)) from refusal
        return Outcome("processed", f"{payout_id}: {payout.status}")
