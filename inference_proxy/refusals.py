"""What the rooms below raise, as the answer that a client gets: one table for the whole server."""

from datetime import UTC, datetime

from ledger import LedgerUnavailable, Microcents, units_text
from ledger.committer import TRANSIENT
from ledger.errors import (
    AccountUnknown,
    BudgetExceeded,
    HoldAlreadyEnded,
    HoldUnknown,
    IdempotencyMismatch,
    InsufficientFunds,
    KeyInactive,
    KeyUnknown,
    PlanOutdated,
    RateLimited,
    Refused,
    TooManyGrants,
)
from ledger.limits import requests_left
from ledger.state import KeyState
from pricing import ModelNotPriced, NoExchangeRate, UsageError
from wire import ApiError, cents_of

#: When only open holds are in the way, the next try may fit after this long: about one answer.
HOLDS_RETRY_AFTER_S = 2
#: What is in the way is over in a moment.
SOON = {"retry-after": "1", "retry-after-ms": "1000", "x-should-retry": "true"}


def translate(error: Exception, *, affordable: str = "") -> ApiError | None:
    """The answer for an exception of ours; None for one that nobody foresaw.

    ``affordable`` is a sentence for refusals about money, such as how many tokens would fit.
    """
    match error:
        case ApiError():
            return error
        case InsufficientFunds():
            return _insufficient_funds(error, affordable)
        case BudgetExceeded():
            return _budget_exceeded(error, affordable)
        case RateLimited():
            return _rate_limited(error)
        case ModelNotPriced() | NoExchangeRate():
            return ApiError("model_not_priced", str(error), param="model")
        case UsageError():
            return ApiError("invalid_request", str(error), param=error.key)
        case KeyInactive():
            return ApiError("unauthorized", "the key was deleted")
        case KeyUnknown() | AccountUnknown() | HoldUnknown():
            return ApiError("not_found", str(error))
        case IdempotencyMismatch():
            return ApiError("idempotency_mismatch", "the Idempotency-Key was used before with another body")
        case HoldAlreadyEnded() | TooManyGrants():
            return ApiError("conflict", str(error))
        case PlanOutdated():
            return ApiError(
                "conflict",
                "the account's plan changes faster than the request can be priced; nothing was charged",
                headers=SOON,
            )
        case LedgerUnavailable():
            return ApiError(
                "ledger_unavailable",
                "the ledger does not answer; nothing was charged",
                headers=SOON,
            )
        case Refused():
            return ApiError("invalid_request", str(error))
        case _ if isinstance(error, TRANSIENT):
            return translate(LedgerUnavailable())
        case _:
            return None


def money_reason(error: InsufficientFunds | BudgetExceeded) -> str:
    """What stands in the way of a hold: the customer's own open holds, the key's budget, or the balance."""
    if error.holds_in_flight:
        return "holds_in_flight"
    return "insufficient_funds" if isinstance(error, InsufficientFunds) else "budget_exceeded"


def _insufficient_funds(error: InsufficientFunds, affordable: str) -> ApiError:
    available = Microcents(max(error.available, 0))
    message = (
        f"needs up to {units_text(error.needed, error.currency)}, available "
        f"{units_text(available, error.currency)} (held {units_text(error.held, error.currency)})"
    )
    return ApiError(
        "payment_required",
        message + affordable,
        headers=_retry_when(error.holds_in_flight),
        fields={
            "reason": money_reason(error),
            "needed_cents": cents_of(error.needed),
            "available_cents": cents_of(available),
            "held_cents": cents_of(error.held),
        },
    )


def _budget_exceeded(error: BudgetExceeded, affordable: str) -> ApiError:
    left = Microcents(max(error.limit - error.spent - error.held, 0))
    message = (
        f"needs up to {units_text(error.needed, error.currency)}, the key's monthly budget of "
        f"{units_text(error.limit, error.currency)} has {units_text(left, error.currency)} left "
        f"(spent {units_text(error.spent, error.currency)}, held {units_text(error.held, error.currency)}) "
        f"until {error.resets_at:%Y-%m-%dT%H:%M:%SZ}"
    )
    return ApiError(
        "payment_required",
        message + affordable,
        headers=_retry_when(error.holds_in_flight),
        fields={
            "reason": money_reason(error),
            "scope": "key",
            "limit_cents": cents_of(error.limit),
            "spent_cents": cents_of(error.spent),
            "held_cents": cents_of(error.held),
            "resets_at": error.resets_at,
        },
    )


def _retry_when(holds_in_flight: bool) -> dict[str, str]:
    if not holds_in_flight:
        return {"x-should-retry": "false"}
    return {
        "x-should-retry": "true",
        "retry-after": str(HOLDS_RETRY_AFTER_S),
        "retry-after-ms": str(HOLDS_RETRY_AFTER_S * 1000),
    }


def _rate_limited(error: RateLimited) -> ApiError:
    wait_ms = -int(-error.retry_after_s * 1000 // 1)
    return ApiError(
        "rate_limit_exceeded",
        f"the key's limit of {error.limit_rpm} requests per minute is used up; the next one fits in "
        f"{wait_ms / 1000:.3f} s, all of them in {error.reset_after_s:.3f} s",
        headers={
            "retry-after": str(min(-(-wait_ms // 1000), 120)),
            "retry-after-ms": str(wait_ms),
            "x-should-retry": "true",
            "x-ratelimit-limit-requests": str(error.limit_rpm),
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": f"{error.reset_after_s:.3f}s",
        },
        fields={"scope": "key", "limit": error.limit_rpm, "limit_unit": "requests_per_minute"},
    )


def shutting_down() -> ApiError:
    """The refusal of a process that finishes what it has begun."""
    return ApiError(
        "shutting_down",
        "this server stops; another one answers, or this one again in a moment",
        headers={**SOON, "connection": "close"},
    )


def rate_limit_headers(key: KeyState | None, now: datetime) -> dict[str, str]:
    """What is left of the key's requests per minute; nothing for a key without a limit."""
    if key is None or key.rate_limit_rpm is None:
        return {}
    reset = 0.0
    if key.next_arrival is not None:
        reset = max((key.next_arrival - now.astimezone(UTC)).total_seconds(), 0.0)
    left = requests_left(key.next_arrival, limit_rpm=key.rate_limit_rpm, now=now)
    return {
        "x-ratelimit-limit-requests": str(key.rate_limit_rpm),
        "x-ratelimit-remaining-requests": str(left),
        "x-ratelimit-reset-requests": f"{reset:.3f}s",
    }
