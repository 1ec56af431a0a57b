"""Which amounts can be booked."""

from ledger.errors import InvalidAmount
from ledger.money import MAX_AMOUNT, Microcents


def bookable(amount: Microcents) -> Microcents:
    """The amount, if it is a whole number from 0 to ``MAX_AMOUNT``. Raises InvalidAmount otherwise."""
    # A float would pass the comparison, and asyncpg would cut it off silently.
    if type(amount) is not int or not 0 <= amount <= MAX_AMOUNT:
        raise InvalidAmount(amount, f"an amount is a whole number from 0 to {MAX_AMOUNT}")
    return amount


def positive(amount: Microcents) -> Microcents:
    """The amount, if it can be booked and is not zero. Raises InvalidAmount otherwise."""
    if amount == 0:
        raise InvalidAmount(amount, "there is nothing to book")
    return bookable(amount)
