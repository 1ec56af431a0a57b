"""Amounts as card networks count them: whole numbers of a currency's smallest unit.

Which currencies have other than two decimals there is Stripe's published list; it is not quite that of ISO 4217.
"""

from decimal import Decimal

from ledger import Microcents
from payments.errors import AmountRefused

_DECIMALS = {
    **dict.fromkeys(
        ("BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"), 0
    ),
    **dict.fromkeys(("BHD", "JOD", "KWD", "OMR", "TND"), 3),
}
_USUAL_DECIMALS = 2
_MICROCENT_DECIMALS = 8  # of a currency's major unit


def units_in(amount: Microcents, currency: str) -> int:
    """The amount in the currency's smallest unit. Raises AmountRefused when it is no whole number of them."""
    units, rest = divmod(amount, _microcents_per_unit(currency))
    if rest:
        raise AmountRefused(f"the amount is no whole number of the smallest unit of {currency}")
    return units


def microcents_in(units: int, currency: str) -> Microcents:
    """So many of the currency's smallest unit, as an amount to book."""
    return Microcents(units * _microcents_per_unit(currency))


def major_units(units: int, currency: str) -> Decimal:
    """So many of the currency's smallest unit, in its major unit, exact."""
    return Decimal(f"{units}E-{_DECIMALS.get(currency, _USUAL_DECIMALS)}")


def _microcents_per_unit(currency: str) -> int:
    return int(10 ** (_MICROCENT_DECIMALS - _DECIMALS.get(currency, _USUAL_DECIMALS)))
