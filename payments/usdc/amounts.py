"""USDC for credit. A coin is a dollar, and is counted in millionths: one of them is 100 microcents of a dollar.

Accounts in another currency are credited at a rate; all rounding of this road is here: the microcent below.
"""

from decimal import Decimal

from ledger import Microcents, Paid
from payments.usdc.config import CURRENCY

#: What a coin is worth, one for one.
PEG = "USD"

_DECIMALS = 6
_MICROCENTS_PER_UNIT = 100


def usdc(units: int) -> Paid:
    """So many millionths, as money that a chain moves."""
    return Paid(CURRENCY, coins(units))


def coins(units: int) -> Decimal:
    """So many millionths, in USDC. Exact, however many they are."""
    sign, digits, exponent = Decimal(units).as_tuple()
    assert isinstance(exponent, int)  # it is finite
    return Decimal((sign, digits, exponent - _DECIMALS))


def credit_for(units: int, rate: Decimal | None) -> Microcents:
    """What is credited for so many millionths. ``rate``: of the account's currency for a dollar; None: it is one."""
    numerator, denominator = (1, 1) if rate is None else rate.as_integer_ratio()
    return Microcents(units * _MICROCENTS_PER_UNIT * numerator // denominator)
