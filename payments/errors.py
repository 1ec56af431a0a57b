"""What this room raises.

PaymentsError
├── PaymentsNotConfigured   the provider has no secrets here: its routes are off
├── AmountRefused           not an amount that can be topped up by
├── CurrencyRefused         an account's currency that cannot be paid for by this road
├── NoSavedCard             what is to be paid while nobody is there needs a saved card
├── AddressesUsedUp         the account has as many addresses for deposits as one may have
├── TopupClosed             the top-up is over; another request begins another one
├── TopupNotFound           no account has a top-up of this id
├── NotRefundable           not paid, or not as much that is neither taken back, held nor spent
├── WebhookRefused          a notification that is not the provider's, or none at all; nothing was stored
├── Break                   a notification that does not fit the books: nothing was booked, a person has to look
├── PeriodNotOver           a period that a provider's books are not closed for yet
├── BreakNotFound           no reconciliation has found a break of this id
├── ProviderUnavailable     the provider does not answer; whether it did what was asked is not known
└── ProviderRefused         the provider will not do what was asked
    ├── CredentialsRefused  it does not know us, or does not let us: somebody has to mend a key
    └── NotAtProvider       it has nothing of the id that was asked for

The ledger's own errors pass through: ``ledger.Refused`` and ``ledger.LedgerUnavailable``.
"""

from datetime import datetime


class PaymentsError(Exception):
    """Root of what this room raises by itself."""


class PaymentsNotConfigured(PaymentsError):
    """The provider's secrets are not set, so that nothing of it could be believed."""

    def __init__(self, provider: str) -> None:
        super().__init__(f"payments by {provider} are not configured")
        self.provider = provider


class AmountRefused(PaymentsError):
    """Below the smallest amount, above the largest, or finer than the provider's smallest unit."""


class CurrencyRefused(PaymentsError):
    """No rate says what an account in this currency would have to pay. Another road may."""


class NoSavedCard(PaymentsError):
    """The account has no saved card to take top-ups with."""

    def __init__(self) -> None:
        super().__init__("no card is saved; save one first")


class AddressesUsedUp(PaymentsError):
    """The addresses that the account has stay valid."""


class TopupClosed(PaymentsError):
    """The top-up that the request stands for cannot be paid any more, or is paid already."""

    def __init__(self, topup_id: str, status: str) -> None:
        super().__init__(f"top-up {topup_id} is {status}; a request with another Idempotency-Key begins another one")
        self.topup_id = topup_id
        self.status = status


class TopupNotFound(PaymentsError):
    """No account has a top-up of this id."""

    def __init__(self, topup_id: str) -> None:
        super().__init__(f"there is no top-up {topup_id}")
        self.topup_id = topup_id


class NotRefundable(PaymentsError):
    """There is not as much to give back. Nothing was asked of the provider."""

    def __init__(self, topup_id: str, rule: str) -> None:
        super().__init__(f"top-up {topup_id}: {rule}")
        self.topup_id = topup_id


class WebhookRefused(PaymentsError):
    """``reason`` is one word, for counting: forged, stale, too_large, unreadable."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Break(PaymentsError):
    """A true notification that does not fit what we asked for, or what was credited. ``reason`` is for counting."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class PeriodNotOver(PaymentsError):
    """What the provider says of it now is not all that it will say."""

    def __init__(self, provider: str, closed_at: datetime) -> None:
        super().__init__(f"the books of {provider} are closed for this period at {closed_at.isoformat()}")
        self.provider = provider
        self.closed_at = closed_at


class BreakNotFound(PaymentsError):
    """Breaks are found by reconciliations, and known by their ids from then on."""

    def __init__(self, break_id: str) -> None:
        super().__init__(f"no reconciliation has found a break {break_id}")
        self.break_id = break_id


class ProviderUnavailable(PaymentsError):
    """Asking for the same again is safe, and finds out what became of it."""

    def __init__(self, provider: str, problem: str) -> None:
        super().__init__(f"{provider} does not answer: {problem}")
        self.provider = provider


class ProviderRefused(PaymentsError):
    """The same again will be refused again, until somebody changes something."""

    def __init__(self, provider: str, problem: str) -> None:
        super().__init__(f"{provider} refused: {problem}")
        self.provider = provider


class CredentialsRefused(ProviderRefused):
    """Our key is wrong, revoked, or not for this. Nothing was done; the same again works once the key is mended."""


class NotAtProvider(ProviderRefused):
    """It has nothing of this id, and ids are never given twice."""
