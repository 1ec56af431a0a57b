"""What the ledger raises.

LedgerError
├── Refused                     a command that the rules do not allow; nothing was written
│   ├── InvalidAmount           not positive, too large to book, or no whole number
│   ├── NotStorable             text with a NUL character, which Postgres cannot read back
│   ├── WrongStream             money in the price book, a price in an account, a fee in neither
│   ├── AccountUnknown · KeyUnknown · KeyInactive
│   ├── PlanOutdated            the hold was priced for another plan than the account is on
│   ├── InsufficientFunds       the available balance does not cover the hold
│   ├── BudgetExceeded          the key's monthly budget does not cover the hold
│   ├── InvalidGrant            a grant that would have expired already, or has a priority that there is not
│   ├── TooManyGrants           the account has as many open grants as it can
│   ├── GrantNotExpired         nothing of the grant has lapsed, or not any more
│   ├── RateLimited             the key's requests per minute are used up
│   ├── HoldUnknown · HoldAlreadyEnded
│   ├── HoldNotOverdue          the hold was extended after the sweep had seen that its time was out
│   ├── DrawExceedsHold         a draw above what the hold has left
│   ├── ChargeUnknown           no such charge, or fewer corrections of it than the command says
│   ├── TopupUnknown
│   ├── TopupNotCredited        nothing can be taken back before it was credited
│   ├── TopupMismatch           what was paid or taken back is not what was asked or credited
│   ├── TopupOver               the top-up was credited, failed or expired before
│   ├── PayoutUnknown           it was not initiated
│   ├── PayoutOver              the payout failed before
│   └── IdempotencyMismatch     the key was used before, for another command
├── LedgerUnavailable           Postgres cannot be reached; whether the command was carried out is not known
│   └── LedgerOverloaded        too much is waiting for it: the command was not even taken
└── LedgerCorrupt               stored books that break a rule: our bug or a forgery, never the caller's fault
"""

from datetime import datetime

from ledger.money import Microcents


class LedgerError(Exception):
    """Root of everything the ledger raises."""


class Refused(LedgerError):
    """A command that the rules do not allow. Nothing was written; the same command may succeed later."""


class InvalidAmount(Refused):
    """An amount that cannot be booked."""

    def __init__(self, amount: int, rule: str) -> None:
        super().__init__(f"{amount} microcents: {rule}")
        self.amount = amount
        self.rule = rule


class NotStorable(Refused):
    """A text contains a NUL character: ``json`` would keep it, and every later query over the log would fail on it."""

    def __init__(self, event_type: str) -> None:
        super().__init__(f"{event_type}: a NUL character cannot be stored")
        self.event_type = event_type


class WrongStream(Refused):
    """The price book and payment providers are no accounts: each takes its own events, and an account all others."""

    def __init__(self, stream_id: str) -> None:
        super().__init__(f"this cannot happen to {stream_id}")
        self.stream_id = stream_id


class AccountUnknown(Refused):
    """No account of this id was opened."""

    def __init__(self, account_id: str) -> None:
        super().__init__(f"there is no account {account_id}")
        self.account_id = account_id


class KeyUnknown(Refused):
    """The account has no key of this id."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"there is no key {key_id}")
        self.key_id = key_id


class KeyInactive(Refused):
    """The key was deleted."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"key {key_id} was deleted")
        self.key_id = key_id


class PlanOutdated(Refused):
    """The hold was priced for another plan than the account is on. The caller prices it for ``plan`` and submits it
    again."""

    def __init__(self, account_id: str, *, priced_for: str | None, plan: str | None) -> None:
        super().__init__(f"priced for the plan {priced_for}, {account_id} is on {plan}")
        self.plan = plan


class InsufficientFunds(Refused):
    """The available balance does not cover the hold.

    ``holds_in_flight`` tells that the posted balance would: only other open holds of the account are in the way, and
    the same command may succeed once they end. ``own`` is what the hold itself has set aside already.
    """

    def __init__(
        self,
        account_id: str,
        currency: str,
        *,
        needed: Microcents,
        available: Microcents,
        held: Microcents,
        own: int = 0,
    ) -> None:
        super().__init__(f"needs {needed} microcents, available {available} (held {held})")
        self.account_id = account_id
        self.currency = currency
        self.needed = needed
        self.available = available
        self.held = held
        self.holds_in_flight = needed <= available + held - own


class BudgetExceeded(Refused):
    """The key's budget of this calendar month (UTC) does not cover the hold.

    ``holds_in_flight`` and ``own`` as those of InsufficientFunds, within the budget.
    """

    def __init__(
        self,
        key_id: str,
        currency: str,
        *,
        needed: Microcents,
        limit: Microcents,
        spent: Microcents,
        held: Microcents,
        own: int = 0,
        resets_at: datetime,
    ) -> None:
        super().__init__(f"key {key_id}: needs {needed} microcents of a budget of {limit}, spent {spent}, held {held}")
        self.key_id = key_id
        self.currency = currency
        self.needed = needed
        self.limit = limit
        self.spent = spent
        self.held = held
        self.resets_at = resets_at
        self.holds_in_flight = spent + own + needed <= limit


class InvalidGrant(Refused):
    """The terms of a grant cannot be kept."""

    def __init__(self, rule: str) -> None:
        super().__init__(f"credit grant: {rule}")
        self.rule = rule


class TooManyGrants(Refused):
    """The account has as many open grants as it can. One of them has to be spent or to expire first."""

    def __init__(self, account_id: str, limit: int) -> None:
        super().__init__(f"account {account_id} has {limit} open credit grants, which is as many as it can have")
        self.account_id = account_id
        self.limit = limit


class GrantNotExpired(Refused):
    """Nothing of the grant is to be taken off the books: it has time left, open holds lean on all that is left of it,
    or somebody else was first."""

    def __init__(self, grant_id: str) -> None:
        super().__init__(f"nothing of grant {grant_id} has lapsed")
        self.grant_id = grant_id


class RateLimited(Refused):
    """The key's requests per minute are used up; ``retry_after_s`` is when the next one fits."""

    def __init__(self, key_id: str, *, limit_rpm: int, retry_after_s: float, reset_after_s: float) -> None:
        super().__init__(f"key {key_id}: {limit_rpm} requests per minute are used up")
        self.key_id = key_id
        self.limit_rpm = limit_rpm
        self.retry_after_s = retry_after_s
        self.reset_after_s = reset_after_s  # until the whole minute's allowance is back


class HoldUnknown(Refused):
    """The account never had a hold of this id."""

    def __init__(self, hold_id: str) -> None:
        super().__init__(f"there is no hold {hold_id}")
        self.hold_id = hold_id


class HoldAlreadyEnded(Refused):
    """The hold ended in another way before: a hold ends exactly once."""

    def __init__(self, hold_id: str, ended_by: str) -> None:
        super().__init__(f"hold {hold_id} ended already: {ended_by}")
        self.hold_id = hold_id
        self.ended_by = ended_by


class HoldNotOverdue(Refused):
    """The hold lives longer than the sweep saw: its owner extended it in between."""

    def __init__(self, hold_id: str, expires_at: datetime) -> None:
        super().__init__(f"hold {hold_id} lives until {expires_at.isoformat()}")
        self.hold_id = hold_id
        self.expires_at = expires_at


class DrawExceedsHold(Refused):
    """A draw above what the hold has left; extend the hold first."""

    def __init__(self, hold_id: str, *, needed: Microcents, left: Microcents) -> None:
        super().__init__(f"hold {hold_id}: a draw of {needed} microcents, {left} left")
        self.hold_id = hold_id
        self.needed = needed
        self.left = left


class ChargeUnknown(Refused):
    """The account and key have no such settlement or draw, or it was not corrected as often as the command says."""

    def __init__(self, hold_id: str, reference: str | None, *, corrections: int) -> None:
        part = "" if reference is None else f", {reference}"
        super().__init__(f"there is no charge of hold {hold_id}{part} that was corrected {corrections} times")
        self.hold_id = hold_id
        self.reference = reference
        self.corrections = corrections


class TopupUnknown(Refused):
    """The account never had a top-up of this id."""

    def __init__(self, topup_id: str) -> None:
        super().__init__(f"there is no top-up {topup_id}")
        self.topup_id = topup_id


class TopupNotCredited(Refused):
    """A reversal of what was not credited yet: providers report out of order. It can be submitted again later."""

    def __init__(self, topup_id: str, status: str) -> None:
        super().__init__(f"top-up {topup_id} was not credited yet: {status}")
        self.topup_id = topup_id
        self.status = status


class TopupMismatch(Refused):
    """What the provider says does not fit what it was asked for, or what was credited. Nothing was booked, and a person
    has to look at it."""

    def __init__(self, topup_id: str, rule: str) -> None:
        super().__init__(f"top-up {topup_id}: {rule}")
        self.topup_id = topup_id
        self.rule = rule


class TopupOver(Refused):
    """The top-up was credited, failed or expired before, and what the command says cannot follow."""

    def __init__(self, topup_id: str, status: str) -> None:
        super().__init__(f"top-up {topup_id} is over: {status}")
        self.topup_id = topup_id
        self.status = status


class PayoutUnknown(Refused):
    """The provider's payout was not initiated yet: it can be submitted again after that."""

    def __init__(self, payout_id: str) -> None:
        super().__init__(f"there is no payout {payout_id}")
        self.payout_id = payout_id


class PayoutOver(Refused):
    """The payout failed before; what is paid then is another one."""

    def __init__(self, payout_id: str) -> None:
        super().__init__(f"payout {payout_id} has failed")
        self.payout_id = payout_id


class IdempotencyMismatch(Refused):
    """The idempotency key was used before with another command."""

    def __init__(self, idempotency_key: str) -> None:
        super().__init__(f"idempotency key {idempotency_key!r} was used before with other content")
        self.idempotency_key = idempotency_key


class LedgerUnavailable(LedgerError):
    """Postgres cannot be reached. Submitting the same command again is safe, and finds out what became of it."""


class LedgerOverloaded(LedgerUnavailable):
    """More commands wait than may, or for too long, or the process stops. Nothing was taken, and nothing written."""


class LedgerCorrupt(LedgerError):
    """The stored books break a rule that every writer keeps. Nothing is guessed: the operation stops."""
