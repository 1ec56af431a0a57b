"""What payment providers do with money that they hold for us: fees, payouts, and breaks that a person resolved.

Each provider has a stream of its own, which is no account: nobody's balance is in it. Here are its events, the commands
that they come from, and the rules between the two. Pure.

Providers tell of a fee or a payout more than once, by notifications and by their lists, in any order. So each is booked
once, keyed by the provider's own id of it, and says nothing that differs between the one and the other. A payout is
initiated, then paid or not; it can still fail after it was paid, and once it failed it is never paid.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, Literal, assert_never

import msgspec

from ledger.amounts import bookable, positive
from ledger.bases import CommandBase, EventBase
from ledger.errors import InvalidAmount, PayoutOver, PayoutUnknown, WrongStream
from ledger.money import ZERO, Microcents

_PREFIX: Final = "provider:"


def provider_stream(provider: str) -> str:
    """The id of a provider's stream. Account ids begin with ``acct_``, so that it can never be one."""
    return _PREFIX + provider


def is_provider_stream(stream_id: str) -> bool:
    return stream_id.startswith(_PREFIX)


# --- events: amounts are microcents of the currency that the event names


class ProcessorFeeCharged(EventBase, frozen=True, kw_only=True, tag="processor_fee.charged"):
    """What the provider keeps for its service, or gives back of that: exactly one of the two amounts is above zero."""

    reference: str  # the provider's id of the entry in its own books
    currency: str
    charged_microcents: Microcents
    refunded_microcents: Microcents
    happened_at: datetime  # by the provider's clock


class PayoutInitiated(EventBase, frozen=True, kw_only=True, tag="payout.initiated"):
    """Money is on its way from the provider to our bank."""

    payout_id: str
    amount_microcents: Microcents
    currency: str
    happened_at: datetime  # by the provider's clock


class PayoutPaid(EventBase, frozen=True, kw_only=True, tag="payout.paid"):
    """It arrived, as far as the provider knows."""

    payout_id: str
    amount_microcents: Microcents
    currency: str


class PayoutFailed(EventBase, frozen=True, kw_only=True, tag="payout.failed"):
    """It did not arrive, and the provider holds it again. One of the two amounts is all of it, the other zero."""

    payout_id: str
    in_transit_microcents: Microcents  # it was still on its way
    paid_microcents: Microcents  # it was said to have arrived
    currency: str
    reason: str


BreakKind = Literal["missing_here", "missing_there", "different_amount", "different_currency"]


class BreakResolved(EventBase, frozen=True, kw_only=True, tag="break.resolved"):
    """Somebody answers for a difference between the provider's books and ours. It moves no money."""

    provider: str
    break_id: str
    kind: BreakKind
    reason: str
    resolved_by: str


PayoutEvent = PayoutInitiated | PayoutPaid | PayoutFailed
ProviderEvent = ProcessorFeeCharged | PayoutEvent | BreakResolved


# --- commands


class ChargeProcessorFee(CommandBase, frozen=True, kw_only=True, tag=True):
    """Book a fee: above zero what was charged, below it what was given back."""

    reference: str
    currency: str
    amount_microcents: Microcents
    happened_at: datetime


class InitiatePayout(CommandBase, frozen=True, kw_only=True, tag=True):
    payout_id: str
    amount_microcents: Microcents
    currency: str
    happened_at: datetime


class PayPayout(CommandBase, frozen=True, kw_only=True, tag=True):
    payout_id: str


class FailPayout(CommandBase, frozen=True, kw_only=True, tag=True):
    payout_id: str
    reason: str


class ResolveBreak(CommandBase, frozen=True, kw_only=True, tag=True):
    """Say why a break is none, or what was done about it. Its amounts are part of its id: others are another break."""

    provider: str
    break_id: str
    kind: BreakKind
    reason: str
    resolved_by: str


PayoutCommand = InitiatePayout | PayPayout | FailPayout
ProviderCommand = ChargeProcessorFee | PayoutCommand | ResolveBreak


# --- rules


class PayoutState(msgspec.Struct, frozen=True, kw_only=True):
    """A payout as it stands. No table keeps it: it is read from its events, which are at most three."""

    amount: Microcents
    currency: str
    is_paid: bool = False
    has_failed: bool = False


def provider_key_of(command: ProviderCommand) -> str:
    """Under which key the log remembers the command."""
    match command:
        case ChargeProcessorFee():
            return key_of_fee(command.reference)
        case InitiatePayout():
            return _key_of_payout("initiated", command.payout_id)
        case PayPayout():
            return _key_of_payout("paid", command.payout_id)
        case FailPayout():
            return _key_of_payout("failed", command.payout_id)
        case ResolveBreak():
            return key_of_break(command.break_id)
        case _:
            assert_never(command)


def key_of_fee(reference: str) -> str:
    return f"fee:{reference}"


def key_of_break(break_id: str) -> str:
    return f"break:{break_id}"


def keys_of_payout(payout_id: str) -> list[str]:
    """The keys of everything that can have happened to a payout, in order."""
    return [_key_of_payout(what, payout_id) for what in ("initiated", "paid", "failed")]


def payout_after(events: Iterable[Any]) -> PayoutState | None:
    """A payout after its events; None before the first."""
    state = None
    for event in events:
        match event:
            case PayoutInitiated():
                state = PayoutState(amount=event.amount_microcents, currency=event.currency)
            case PayoutPaid() if state is not None:
                state = msgspec.structs.replace(state, is_paid=True)
            case PayoutFailed() if state is not None:
                state = msgspec.structs.replace(state, has_failed=True)
    return state


def provider_event(payout: PayoutState | None, command: ProviderCommand) -> ProviderEvent:
    """The event that the command becomes; ``payout`` is the one that it names. Raises a leaf of ``Refused``."""
    if not is_provider_stream(command.stream_id):
        raise WrongStream(command.stream_id)
    match command:
        case ChargeProcessorFee():
            return _fee(command)
        case InitiatePayout():
            return PayoutInitiated(
                payout_id=command.payout_id,
                amount_microcents=positive(command.amount_microcents),
                currency=command.currency,
                happened_at=command.happened_at,
            )
        case PayPayout():
            paid = _still_good(command.payout_id, payout)
            return PayoutPaid(payout_id=command.payout_id, amount_microcents=paid.amount, currency=paid.currency)
        case FailPayout():
            failed = _still_good(command.payout_id, payout)
            return PayoutFailed(
                payout_id=command.payout_id,
                in_transit_microcents=ZERO if failed.is_paid else failed.amount,
                paid_microcents=failed.amount if failed.is_paid else ZERO,
                currency=failed.currency,
                reason=command.reason,
            )
        case ResolveBreak():
            return _resolution(command)
        case _:
            assert_never(command)


def _fee(command: ChargeProcessorFee) -> ProcessorFeeCharged:
    amount = command.amount_microcents
    if amount == 0:
        raise InvalidAmount(amount, "there is nothing to book")
    return ProcessorFeeCharged(
        reference=command.reference,
        currency=command.currency,
        charged_microcents=bookable(Microcents(max(amount, 0))),
        refunded_microcents=bookable(Microcents(max(-amount, 0))),
        happened_at=command.happened_at,
    )


def _resolution(command: ResolveBreak) -> BreakResolved:
    if command.stream_id != provider_stream(command.provider):
        raise WrongStream(command.stream_id)
    return BreakResolved(
        provider=command.provider,
        break_id=command.break_id,
        kind=command.kind,
        reason=command.reason,
        resolved_by=command.resolved_by,
    )


def _still_good(payout_id: str, payout: PayoutState | None) -> PayoutState:
    if payout is None:
        raise PayoutUnknown(payout_id)
    if payout.has_failed:
        raise PayoutOver(payout_id)
    return payout


def _key_of_payout(what: str, payout_id: str) -> str:
    return f"payout-{what}:{payout_id}"
