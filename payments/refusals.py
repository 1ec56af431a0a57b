"""The one table from this room's errors to the answers on the wire."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import structlog

from payments.errors import (
    AddressesUsedUp,
    AmountRefused,
    CurrencyRefused,
    NoSavedCard,
    PaymentsError,
    PaymentsNotConfigured,
    ProviderRefused,
    ProviderUnavailable,
    TopupClosed,
    WebhookRefused,
)
from wire import ApiError

Part = TypeVar("Part")

_CODES: dict[type[PaymentsError], str] = {
    PaymentsNotConfigured: "payments_not_configured",
    AmountRefused: "invalid_request",
    CurrencyRefused: "invalid_request",
    NoSavedCard: "conflict",
    AddressesUsedUp: "conflict",
    TopupClosed: "conflict",
    WebhookRefused: "invalid_request",
}
_log = structlog.get_logger(__name__)
_AGAIN = {"retry-after": "2", "retry-after-ms": "2000", "x-should-retry": "true"}


@contextmanager
def as_api_errors(*, account_id: str | None = None) -> Iterator[None]:
    """What this room refuses inside leaves as the ApiError that says so. Errors of the ledger pass.

    What a provider says is for the log, with the account that it was asked for, and not for customers.
    """
    try:
        yield
    except ProviderUnavailable as error:
        _log.error("payment_provider.unavailable", account_id=account_id, error=str(error))
        message = f"{error.provider} does not answer; try again"
        raise ApiError("payment_provider_unavailable", message, headers=_AGAIN) from error
    except ProviderRefused as error:
        _log.error("payment_provider.refused", account_id=account_id, error=str(error))
        raise ApiError("payment_provider_error", f"{error.provider} did not accept the payment") from error
    except PaymentsError as error:
        param = "amount_cents" if isinstance(error, AmountRefused) else None
        raise ApiError(_CODES[type(error)], str(error), param=param) from error


def configured(part: Part | None, provider: str) -> Part:
    """What is there when the provider is configured. Raises ApiError payments_not_configured."""
    if part is None:
        raise ApiError(_CODES[PaymentsNotConfigured], str(PaymentsNotConfigured(provider)))
    return part
