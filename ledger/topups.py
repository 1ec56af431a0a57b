"""The life of a top-up: requested, pending, credited and perhaps taken back again, or failed, or expired.

Pure. Providers tell what happened more than once and in any order, so a command says how things are to stand, and
``repeated_at`` finds the event that it became before. A payment that comes after its top-up failed or expired is
credited all the same: the customer paid.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import assert_never

from msgspec.structs import replace

from ledger.amounts import bookable, positive
from ledger.commands import (
    CreditTopup,
    ExpireTopup,
    FailTopup,
    MarkTopupPending,
    ReinstateTopup,
    RequestTopup,
    ReverseTopup,
    TopupCommand,
)
from ledger.errors import (
    IdempotencyMismatch,
    InvalidAmount,
    LedgerCorrupt,
    TopupMismatch,
    TopupNotCredited,
    TopupOver,
    TopupUnknown,
)
from ledger.events import (
    Event,
    Paid,
    TopupCredited,
    TopupEvent,
    TopupExpired,
    TopupFailed,
    TopupPending,
    TopupReinstated,
    TopupRequested,
    TopupReversed,
)
from ledger.money import Microcents
from ledger.state import REVERSED, Scope, TopupState

#: Digits before and after the point of what a provider moves: more than any coin has, and few enough to be stored.
_LARGEST_PAID = Decimal(10**18)
_FINEST_PAID = -18


def topup_event(scope: Scope, command: TopupCommand) -> TopupEvent:
    """The event that the command becomes. Raises a leaf of ``Refused`` when the rules do not allow it."""
    if isinstance(command, RequestTopup):
        return _request(scope, command)
    topup = _known(scope.topup, command.stream_id, command.topup_id)
    match command:
        case MarkTopupPending():
            _require_unpaid(topup)
            return TopupPending(topup_id=topup.topup_id, reference=command.reference)
        case CreditTopup():
            return _credit(topup, command, paid_for=scope.paid_for)
        case ReverseTopup():
            return _reverse(topup, command)
        case ReinstateTopup():
            return _reinstate(topup, command)
        case FailTopup():
            _require_unpaid(topup)
            return TopupFailed(topup_id=topup.topup_id, reason=command.reason)
        case ExpireTopup():
            _require_unpaid(topup)
            return TopupExpired(topup_id=topup.topup_id)
        case _:
            assert_never(command)


def repeated_at(topup: TopupState, command: TopupCommand, history: Sequence[Event]) -> int | None:
    """Which event of the top-up's history the command became before; None when it is new.

    A reversal that asks for no more than is taken back already, and a reinstatement that asks for no less, are the last
    event: nothing happens that would be one of their own. Raises InvalidAmount when their total cannot be booked.
    """
    for index, event in enumerate(history):
        if _became(command, event):
            return index
    match command:
        case ReverseTopup():
            is_reached = bookable(command.total_microcents) <= topup.reversed_by(command.kind)
        case ReinstateTopup():
            is_reached = topup.reversed_by(command.kind) <= bookable(command.total_microcents) <= topup.amount
        case _:
            is_reached = False
    return len(history) - 1 if is_reached and topup.status == "credited" else None


def topup_after(topup: TopupState | None, event: TopupEvent, *, account_id: str, at: datetime) -> TopupState:
    """The top-up after the event. Raises LedgerCorrupt when the event cannot follow."""
    if isinstance(event, TopupRequested):
        if topup is not None:
            raise LedgerCorrupt(f"top-up {event.topup_id} is requested twice")
        return _requested(event, account_id, at)
    if topup is None or topup.account_id != account_id:
        raise LedgerCorrupt(f"top-up {event.topup_id} was not requested")
    match event:
        case TopupCredited():
            if topup.status == "credited":
                raise LedgerCorrupt(f"top-up {topup.topup_id} is credited twice")
            if (event.provider, event.amount_microcents, event.paid) != (topup.provider, topup.amount, topup.asked):
                raise LedgerCorrupt(f"top-up {topup.topup_id} is credited otherwise than it was requested")
            return replace(topup, status="credited", payment_id=event.payment_id, credited_at=at)
        case TopupReversed():
            return _taken_back(topup, event, event.amount_microcents)
        case TopupReinstated():
            return _taken_back(topup, event, -event.amount_microcents)
        case TopupPending():
            return replace(_still_unpaid(topup), status="pending", reference=event.reference)
        case TopupFailed():
            return replace(_still_unpaid(topup), status="failed")
        case TopupExpired():
            return replace(_still_unpaid(topup), status="expired")
        case _:
            assert_never(event)


def credited_by(event: TopupEvent) -> int:
    """What the event adds to the account, or takes from it."""
    match event:
        case TopupCredited() | TopupReinstated():
            return event.amount_microcents
        case TopupReversed():
            return -event.amount_microcents
        case _:
            return 0


def _request(scope: Scope, command: RequestTopup) -> TopupRequested:
    if scope.topup is not None:
        raise IdempotencyMismatch(command.topup_id)
    asked = command.asked.amount
    if not (asked.is_finite() and 0 < asked <= _LARGEST_PAID and _exponent(asked) >= _FINEST_PAID):
        raise InvalidAmount(command.amount_microcents, f"nobody can be asked to pay {asked} for it")
    return TopupRequested(
        topup_id=command.topup_id,
        provider=command.provider,
        amount_microcents=positive(command.amount_microcents),
        asked=command.asked,
        requested_by=command.requested_by,
        exchange_rate=command.exchange_rate,
        rate_source=command.rate_source,
    )


def _credit(topup: TopupState, command: CreditTopup, *, paid_for: str | None) -> TopupCredited:
    if topup.status == "credited":
        raise TopupMismatch(topup.topup_id, f"is paid already, by {topup.payment_id} and not by {command.payment_id}")
    if command.provider != topup.provider:
        raise TopupMismatch(topup.topup_id, f"asked of {topup.provider}, paid through {command.provider}")
    if command.paid != topup.asked:
        raise TopupMismatch(topup.topup_id, f"asked were {topup.asked}, paid were {command.paid}")
    if paid_for is not None:
        raise TopupMismatch(topup.topup_id, f"payment {command.payment_id} was credited to another top-up")
    return TopupCredited(
        topup_id=topup.topup_id,
        provider=topup.provider,
        payment_id=command.payment_id,
        amount_microcents=topup.amount,
        paid=command.paid,
    )


def _reverse(topup: TopupState, command: ReverseTopup) -> TopupReversed:
    total, before = bookable(command.total_microcents), _require_credited(topup).reversed_by(command.kind)
    if topup.reversed - before + total > topup.amount:
        raise TopupMismatch(topup.topup_id, f"{topup.amount} microcents were credited, more would be taken back")
    return TopupReversed(
        topup_id=topup.topup_id,
        kind=command.kind,
        amount_microcents=positive(Microcents(total - before)),
        total_microcents=total,
        reason=command.reason,
    )


def _reinstate(topup: TopupState, command: ReinstateTopup) -> TopupReinstated:
    total, before = bookable(command.total_microcents), _require_credited(topup).reversed_by(command.kind)
    return TopupReinstated(
        topup_id=topup.topup_id,
        kind=command.kind,
        amount_microcents=positive(Microcents(before - total)),
        total_microcents=total,
        reason=command.reason,
    )


def _became(command: TopupCommand, event: Event) -> bool:
    match command, event:
        case MarkTopupPending(), TopupPending():
            return command.reference == event.reference
        case CreditTopup(), TopupCredited():
            return _payment(command) == _payment(event)
        case ReverseTopup(), TopupReversed():
            return _taking_back(command) == _taking_back(event)
        case ReinstateTopup(), TopupReinstated():
            return _taking_back(command) == _taking_back(event)
        case FailTopup(), TopupFailed():
            return True
        case ExpireTopup(), TopupExpired():
            return True
        case _:
            return False


def _payment(said: CreditTopup | TopupCredited) -> tuple[str, str, Paid]:
    return said.provider, said.payment_id, said.paid


def _taking_back(said: ReverseTopup | ReinstateTopup | TopupReversed | TopupReinstated) -> tuple[str, int, str]:
    return said.kind, said.total_microcents, said.reason


def _requested(event: TopupRequested, account_id: str, at: datetime) -> TopupState:
    return TopupState(
        topup_id=event.topup_id,
        account_id=account_id,
        provider=event.provider,
        status="requested",
        amount=event.amount_microcents,
        asked_currency=event.asked.currency,
        asked_amount=event.asked.amount,
        requested_by=event.requested_by,
        requested_at=at,
    )


def _taken_back(topup: TopupState, event: TopupReversed | TopupReinstated, more: int) -> TopupState:
    after = replace(topup, **{REVERSED[event.kind]: Microcents(topup.reversed_by(event.kind) + more)})
    if after.reversed_by(event.kind) != event.total_microcents:
        raise LedgerCorrupt(f"top-up {topup.topup_id}: its {event.kind} does not continue what was taken back before")
    if topup.status != "credited" or event.total_microcents < 0 or after.reversed > topup.amount:
        raise LedgerCorrupt(f"top-up {topup.topup_id}: more is taken back than was credited, or less than nothing")
    return after


def _known(topup: TopupState | None, account_id: str, topup_id: str) -> TopupState:
    if topup is None or topup.account_id != account_id:
        raise TopupUnknown(topup_id)
    return topup


def _require_unpaid(topup: TopupState) -> None:
    if topup.status not in ("requested", "pending"):
        raise TopupOver(topup.topup_id, topup.status)


def _require_credited(topup: TopupState) -> TopupState:
    if topup.status != "credited":
        raise TopupNotCredited(topup.topup_id, topup.status)
    return topup


def _still_unpaid(topup: TopupState) -> TopupState:
    if topup.status not in ("requested", "pending"):
        raise LedgerCorrupt(f"top-up {topup.topup_id} goes on after it was {topup.status}")
    return topup


def _exponent(amount: Decimal) -> int:
    exponent = amount.as_tuple().exponent
    assert isinstance(exponent, int)  # it is finite
    return exponent
