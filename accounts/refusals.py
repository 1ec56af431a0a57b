"""The one table from this room's errors to the answers on the wire."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

from accounts.errors import (
    AccountNotFound,
    AccountsError,
    EmailTaken,
    IdempotencyKeyReused,
    KeyNotFound,
    ServiceTokenNotFound,
    TooBusy,
    WrongCredentials,
)
from wire import ApiError

_CODES: dict[type[AccountsError], str] = {
    EmailTaken: "conflict",
    WrongCredentials: "invalid_credentials",
    AccountNotFound: "not_found",
    KeyNotFound: "not_found",
    ServiceTokenNotFound: "not_found",
    IdempotencyKeyReused: "idempotency_mismatch",
}


@contextmanager
def as_api_errors() -> Iterator[None]:
    """What this room refuses inside leaves as the ApiError that says so. Errors of the ledger pass."""
    try:
        yield
    except TooBusy as error:
        raise too_many(str(error), error.retry_after_s) from error
    except AccountsError as error:
        raise ApiError(_CODES[type(error)], str(error)) from error


def too_many(message: str, wait_s: float) -> ApiError:
    """The answer to one who should try again in so many seconds."""
    headers = {"Retry-After": str(math.ceil(wait_s)), "Retry-After-Ms": str(math.ceil(wait_s * 1000))}
    return ApiError("rate_limit_exceeded", message, headers=headers)
