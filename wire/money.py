"""Money on the wire: ``*_cents`` fields are JSON numbers, exact to six decimals of a cent."""

from decimal import Decimal
from typing import Annotated

import msgspec

from ledger import Microcents, cents_text, microcents_from_cents
from wire.errors import ApiError

Cents = Annotated[Decimal, msgspec.Meta(description="Cents of the account's currency, exact to six decimals.")]


def cents_of(amount: Microcents) -> Decimal:
    """The amount as it is written on the wire: a whole number of cents has no decimals."""
    return Decimal(cents_text(amount))


def microcents_of(cents: Decimal, *, param: str) -> Microcents:
    """The amount that a request names, in microcents. Raises ApiError, naming ``param``, when it cannot be booked."""
    try:
        return microcents_from_cents(cents)
    except ValueError as error:
        raise ApiError("invalid_request", str(error), param=param) from error
