"""Money: whole microcents of the account's one currency.

A microcent is 10⁻⁶ of a cent (10⁻⁸ of a dollar or yuan): fine enough that one token of the cheapest model is
still a whole number of them, coarse enough that a 64-bit column holds 92 thousand million dollars.
"""

from decimal import Context, Decimal
from typing import NewType

Microcents = NewType("Microcents", int)

ZERO = Microcents(0)
MICROCENTS_PER_CENT = 1_000_000
_MICROCENT_IN_CENTS = Decimal("0.000001")
MICROCENTS_PER_UNIT = 100 * MICROCENTS_PER_CENT  # of the currency's major unit: dollar, euro, yuan

#: The largest amount one command may carry. A tenth of what the column holds, so that no sum of a balance and
#: one amount can overflow it; a larger amount is a mistake of unit, not a payment.
MAX_AMOUNT = Microcents(2**63 // 10)
_MAX_CENTS = Decimal(MAX_AMOUNT) / MICROCENTS_PER_CENT
_DIGITS = Context(prec=28)  # enough for every amount up to the largest, whatever context the caller set


def microcents_from_cents(cents: int | Decimal) -> Microcents:
    """The amount in microcents of a whole or decimal number of cents.

    Raises ValueError when the number is finer than a microcent, not finite, or beyond ``MAX_AMOUNT``: money is
    never rounded on its way in.
    """
    exact = Decimal(cents)
    # Compared before anything is computed: Decimal's own arithmetic rounds to the context's digits, and overflows.
    if not exact.is_finite() or exact.copy_abs() > _MAX_CENTS:
        raise ValueError(f"{cents} cents is not an amount that can be booked")
    rounded = exact.quantize(_MICROCENT_IN_CENTS, context=_DIGITS)
    if rounded != exact:
        raise ValueError(f"{cents} cents is finer than a microcent (six decimals of a cent)")
    return Microcents(int(rounded.scaleb(6, context=_DIGITS)))


def cents_text(amount: Microcents) -> str:
    """The amount in cents as a plain decimal number, exact: ``1000``, ``0.000135``, ``-12.5``."""
    sign = "-" if amount < 0 else ""
    cents, rest = divmod(abs(amount), MICROCENTS_PER_CENT)
    if not rest:
        return f"{sign}{cents}"
    return f"{sign}{cents}.{rest:06d}".rstrip("0")


def units_of(amount: Microcents) -> Decimal:
    """The amount in the currency's major unit, exact."""
    return Decimal(f"{amount}E-8")


def units_text(amount: Microcents, currency: str) -> str:
    """The amount in the currency's major unit for people to read, exact, at least two decimals: ``10.00 USD``."""
    sign = "-" if amount < 0 else ""
    units, rest = divmod(abs(amount), MICROCENTS_PER_UNIT)
    decimals = f"{rest:08d}".rstrip("0").ljust(2, "0")
    return f"{sign}{units}.{decimals} {currency}"
