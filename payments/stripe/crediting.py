"""A payment of Stripe's, credited to the top-up that it is for: once, whoever hears of it first."""

from ledger import CreditTopup, Ledger, Paid, TopupState
from payments.outcomes import Outcome, book
from payments.smallest_units import major_units
from payments.stripe.api import PROVIDER


async def credit(ledger: Ledger, topup: TopupState, *, payment_id: str, units: int, currency: str) -> Outcome:
    """Book what was paid. Raises Break when it is not what was asked for, and ledger.LedgerUnavailable."""
    await book(
        ledger,
        CreditTopup(
            stream_id=topup.account_id,
            topup_id=topup.topup_id,
            provider=PROVIDER,
            payment_id=payment_id,
            paid=Paid(currency.upper(), major_units(units, currency.upper())),
        ),
    )
    return Outcome("processed", f"{topup.topup_id}: credited for {payment_id}")
