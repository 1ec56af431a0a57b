"""Stripe's side of a reconciliation, and what is booked of its fees and payouts.

A charge in another currency than the account at Stripe is settled in has two amounts: what the payer paid, which is
what we asked for, and what the balance grew by. The first is compared; fees and payouts are in the second's currency.
"""

from datetime import UTC, datetime, timedelta, tzinfo

from ledger import ChargeProcessorFee, FailPayout, InitiatePayout, PayPayout, provider_stream
from ledger.providers import ProviderCommand
from payments.reconciliation.lines import Line, LineKind, Period, Statement
from payments.smallest_units import major_units, microcents_in
from payments.stripe.api import PROVIDER
from payments.stripe.balance import BalanceTransaction, StripeBalance, TransactionSource

#: What a category of Stripe's is in our books; any other is ``other``, which is in none.
_KINDS: dict[str, LineKind] = {
    "charge": "payment",
    "charge_failure": "payment",
    "partial_capture_reversal": "payment",
    "refund": "refund",
    "refund_failure": "refund",
    "dispute": "dispute",
    "dispute_reversal": "dispute",
    "fee": "fee",
    "payout": "payout",
    "payout_reversal": "payout",
}
_STREAM = provider_stream(PROVIDER)


class StripeStatements:
    """Stripe as a source of reconciliations. Its days are those of UTC."""

    provider = PROVIDER
    zone: tzinfo = UTC
    ready_after = timedelta(minutes=10)

    def __init__(self, balance: StripeBalance) -> None:
        self._balance = balance

    async def statement(self, period: Period, *, needed: Period) -> Statement:
        """See ``Source``. All of the period is there, as far as it is over."""
        transactions = await self._balance.transactions(period.start, period.end)
        sources = [each.source for each in transactions if isinstance(each.source, TransactionSource)]
        payouts = {source.id: source for source in sources if source.object == "payout"}
        commands = fees_of(transactions)
        for payout in payouts.values():
            commands += commands_of(payout)
        return Statement(lines=[line for each in transactions for line in _lines(each)], commands=commands)


def fees_of(transactions: list[BalanceTransaction]) -> list[ProviderCommand]:
    """What books the fees of these transactions: each under the transaction's id."""
    return [
        ChargeProcessorFee(
            stream_id=_STREAM,
            reference=each.id,
            currency=each.currency.upper(),
            amount_microcents=microcents_in(fee, each.currency.upper()),
            happened_at=_at(each.created),
        )
        for each in transactions
        if (fee := _fee(each)) != 0
    ]


def commands_of(payout: TransactionSource) -> list[ProviderCommand]:
    """What books a payout as it is now: whatever was told of it before, it began, and perhaps it is paid or failed."""
    currency = (payout.currency or "").upper()
    begun: list[ProviderCommand] = [
        InitiatePayout(
            stream_id=_STREAM,
            payout_id=payout.id,
            amount_microcents=microcents_in(payout.amount, currency),
            currency=currency,
            happened_at=_at(payout.created),
        )
    ]
    match payout.status:
        case "paid":
            return [*begun, PayPayout(stream_id=_STREAM, payout_id=payout.id)]
        case "failed" | "canceled":
            return [*begun, FailPayout(stream_id=_STREAM, payout_id=payout.id, reason=payout.status)]
        case _:
            return begun


def _lines(each: BalanceTransaction) -> list[Line]:
    lines, fee = [], _fee(each)
    if fee:
        lines.append(_line(each, "fee", each.id, -fee, each.currency))
    kind = _KINDS.get(each.reporting_category, "other")
    if kind == "fee":
        return lines
    source = each.source if isinstance(each.source, TransactionSource) else None
    if kind == "other" or source is None:
        return [*lines, _line(each, "other", each.id, each.amount, each.currency)]
    if kind == "payout":
        return [*lines, _line(each, kind, source.id, each.amount, each.currency)]
    amount, currency = each.amount, each.currency
    if source.currency not in (None, currency):
        amount, currency = (source.amount if amount > 0 else -source.amount), source.currency
    return [*lines, _line(each, kind, source.payment_intent or source.id, amount, currency)]


def _line(each: BalanceTransaction, kind: LineKind, reference: str, units: int, currency: str) -> Line:
    return Line(
        kind=kind,
        reference=reference,
        currency=currency.upper(),
        amount=major_units(units, currency.upper()),
        at=_at(each.created),
        id=each.id,
    )


def _fee(each: BalanceTransaction) -> int:
    """A service that is billed by itself is a movement that is all fee."""
    return each.fee - each.amount if each.reporting_category == "fee" else each.fee


def _at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
