"""Moments as requests name them."""

from datetime import UTC, datetime
from typing import Annotated

import msgspec

from wire.errors import ApiError

#: Moments outside are not in Postgres's reach once they are moved to UTC, and nothing happened then.
FIRST_YEAR, LAST_YEAR = 1970, 9000

_Moment = Annotated[datetime, msgspec.Meta(tz=True)]


def moment_of(text: str, *, param: str) -> datetime:
    """An RFC 3339 time, which has its offset, in UTC. Raises ApiError, naming ``param``, for anything else."""
    try:
        moment = msgspec.convert(text, _Moment)
    except msgspec.ValidationError as error:
        raise ApiError("invalid_request", "not a moment: RFC 3339 with its offset", param=param) from error
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise ApiError("invalid_request", f"not a moment from {FIRST_YEAR} to {LAST_YEAR}", param=param)
    return moment.astimezone(UTC)
