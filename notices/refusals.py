"""The one table from this room's errors to the answers on the wire."""

from collections.abc import Iterator
from contextlib import contextmanager

from notices.errors import (
    EndpointDisabled,
    EndpointNotFound,
    NoticeNotFound,
    NoticesError,
    TargetRefused,
    TooManyEndpoints,
)
from wire import ApiError

_CODES: dict[type[NoticesError], str] = {
    EndpointNotFound: "not_found",
    TooManyEndpoints: "conflict",
    EndpointDisabled: "conflict",
    NoticeNotFound: "not_found",
    TargetRefused: "invalid_request",
}


@contextmanager
def as_api_errors() -> Iterator[None]:
    """What this room refuses inside leaves as the ApiError that says so. Errors of the ledger pass."""
    try:
        yield
    except NoticesError as error:
        param = "url" if isinstance(error, TargetRefused) else None
        raise ApiError(_CODES[type(error)], str(error), param=param) from error
