"""Short words for what payment providers do, Stripe unless told otherwise."""

from datetime import datetime

from ledger import ChargeProcessorFee, FailPayout, InitiatePayout, PayPayout, ResolveBreak, provider_stream
from ledger.providers import BreakKind
from tests.unit.ledger.scenes import NOON

STRIPE, USDC = provider_stream("stripe"), provider_stream("usdc")


def fee(
    amount: int, reference: str = "txn_1", *, stream: str = STRIPE, currency: str = "USD", at: datetime = NOON
) -> ChargeProcessorFee:
    """Below zero it is given back."""
    return ChargeProcessorFee(
        stream_id=stream, reference=reference, currency=currency, amount_microcents=amount, happened_at=at
    )


def payout(amount: int, payout_id: str = "po_1", *, stream: str = STRIPE, currency: str = "USD") -> InitiatePayout:
    return InitiatePayout(
        stream_id=stream, payout_id=payout_id, amount_microcents=amount, currency=currency, happened_at=NOON
    )


def pay_out(payout_id: str = "po_1", *, stream: str = STRIPE) -> PayPayout:
    return PayPayout(stream_id=stream, payout_id=payout_id)


def fail_payout(payout_id: str = "po_1", *, stream: str = STRIPE) -> FailPayout:
    return FailPayout(stream_id=stream, payout_id=payout_id, reason="account_closed")


def resolve(break_id: str = "brk_1", *, kind: BreakKind = "missing_here", reason: str = "a donation") -> ResolveBreak:
    return ResolveBreak(
        stream_id=STRIPE, provider="stripe", break_id=break_id, kind=kind, reason=reason, resolved_by="ann"
    )
