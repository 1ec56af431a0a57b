"""Yuan for credit: what is asked for an amount, what is credited for a payment, and what is taken back of a part of it.

Alipay moves whole fen, an account has microcents of its own currency, and between the two stands a rate. All rounding
of this road is here: a payer is asked for the next fen above, is credited the microcent below, and of a refund the
microcent below is taken back. The arithmetic is of whole numbers.
"""

from decimal import Decimal

import msgspec

from ledger import Microcents, Paid, TopupState
from ledger.money import MICROCENTS_PER_CENT
from payments.errors import AmountRefused
from payments.smallest_units import major_units, units_in

CURRENCY = "CNY"

_FEN_PER_YUAN = 100
_SMALLEST = Decimal("0.01")
_LARGEST = Decimal(10**9)


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What is credited, and what is asked for it."""

    amount: Microcents  # of the account's currency
    asked: Paid


class CreditWished(msgspec.Struct, frozen=True):
    """A customer wants so much more on the account."""

    amount: Microcents

    def at(self, rate: Decimal | None) -> Offer:
        """Raises AmountRefused when an account in yuan would get a part of a fen."""
        if rate is None:
            return Offer(amount=self.amount, asked=yuan(units_in(self.amount, CURRENCY)))
        numerator, denominator = rate.as_integer_ratio()
        fen = -(-self.amount * denominator // (MICROCENTS_PER_CENT * numerator))
        return Offer(amount=self.amount, asked=yuan(fen))

    def is_that_of(self, topup: TopupState) -> bool:
        return topup.amount == self.amount


class PaymentWished(msgspec.Struct, frozen=True):
    """A customer wants to pay so much."""

    fen: int

    @classmethod
    def of(cls, amount: Decimal) -> "PaymentWished":
        """So many yuan. Raises AmountRefused when that is not at least one fen, and a whole number of them."""
        # Before anything is computed: an amount of a million digits is written in a few.
        if not (amount.is_finite() and _SMALLEST <= amount <= _LARGEST):
            raise AmountRefused(f"nobody can be asked to pay {amount} yuan")
        numerator, denominator = amount.as_integer_ratio()
        fen, rest = divmod(numerator * _FEN_PER_YUAN, denominator)
        if rest:
            raise AmountRefused("the amount is no whole number of fen")
        return cls(fen)

    def at(self, rate: Decimal | None) -> Offer:
        numerator, denominator = (1, 1) if rate is None else rate.as_integer_ratio()
        amount = Microcents(self.fen * MICROCENTS_PER_CENT * numerator // denominator)
        return Offer(amount=amount, asked=yuan(self.fen))

    def is_that_of(self, topup: TopupState) -> bool:
        return topup.asked == yuan(self.fen)


Wish = CreditWished | PaymentWished


def yuan(fen: int) -> Paid:
    """So many fen as money that Alipay moves."""
    return Paid(CURRENCY, major_units(fen, CURRENCY))


def taken_back(topup: TopupState, refunded: Decimal) -> Microcents:
    """How much of a top-up is taken back when so many yuan of it were refunded in all. A whole refund takes it all."""
    numerator, denominator = refunded.as_integer_ratio()
    asked_numerator, asked_denominator = topup.asked_amount.as_integer_ratio()
    return Microcents(topup.amount * numerator * asked_denominator // (denominator * asked_numerator))
