"""What may be asked of the ledger. One command ends in one event, or in a refusal.

Every command can be submitted again without a second effect: those about a hold, a key, a top-up or what a provider
does (``providers.py`` has these) by the id they carry, the others by their ``idempotency_key``. So a caller that does
not know whether its command was committed submits it again.
"""

import hashlib
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from ledger.bases import CommandBase
from ledger.events import PRIORITY, AutomaticTopup, Paid, PriceBookEvent, PriceRef, ReversalKind
from ledger.money import Microcents
from ledger.providers import ProviderCommand


class OpenAccount(CommandBase, frozen=True, kw_only=True, tag=True):
    currency: str


class GrantCredit(CommandBase, frozen=True, kw_only=True, tag=True):
    """Give credit that nobody paid for. The key stands for the grant: its id follows from it."""

    amount_microcents: Microcents
    reason: str
    granted_by: str
    idempotency_key: str
    expires_at: datetime | None = None  # None = never
    priority: int = PRIORITY  # 0 to 100; the lower, the earlier it is spent


class ExpireGrant(CommandBase, frozen=True, kw_only=True, tag=True):
    """Take off the books what has lapsed of a grant. Where nothing has, it is refused: so it is not done twice."""

    grant_id: str


class AdjustBalance(CommandBase, frozen=True, kw_only=True, tag=True):
    """Correct a balance by hand: up when the amount is positive, down when it is negative."""

    amount_microcents: Microcents
    reason: str
    adjusted_by: str
    idempotency_key: str


class RequestTopup(CommandBase, frozen=True, kw_only=True, tag=True):
    """Begin a top-up. Its key is bound to its id as well: whoever repeats a request says the same id again."""

    topup_id: str
    provider: str
    amount_microcents: Microcents  # to be credited once it is paid
    asked: Paid  # what the customer is to pay for it
    requested_by: str
    idempotency_key: str
    exchange_rate: Decimal | None = None  # units of the account's currency for one of the asked; None: the same one
    rate_source: str | None = None  # who said so, and when


class MarkTopupPending(CommandBase, frozen=True, kw_only=True, tag=True):
    """Note what the provider calls the order, or the payment under way."""

    topup_id: str
    reference: str


class CreditTopup(CommandBase, frozen=True, kw_only=True, tag=True):
    """Credit what was asked for, because it was paid. A top-up is credited once, and so is a payment."""

    topup_id: str
    provider: str
    payment_id: str
    paid: Paid


class ReverseTopup(CommandBase, frozen=True, kw_only=True, tag=True):
    """Bring what was taken back in this way up to ``total_microcents``; a total that is reached does nothing more.

    The same kind, total and reason again is the same reversal, also after a reinstatement: so the reason names the
    provider's refund or dispute.
    """

    topup_id: str
    kind: ReversalKind
    total_microcents: Microcents
    reason: str


class ReinstateTopup(CommandBase, frozen=True, kw_only=True, tag=True):
    """Bring what was taken back in this way down to ``total_microcents``; as of a reversal otherwise."""

    topup_id: str
    kind: ReversalKind
    total_microcents: Microcents
    reason: str


class FailTopup(CommandBase, frozen=True, kw_only=True, tag=True):
    """End a top-up that was not paid, because it will not be. The first reason stays."""

    topup_id: str
    reason: str


class ExpireTopup(CommandBase, frozen=True, kw_only=True, tag=True):
    """End a top-up that was not paid in time."""

    topup_id: str


class ChangeAutomaticTopup(CommandBase, frozen=True, kw_only=True, tag=True):
    """Say when the account is to be topped up without being asked; None = never."""

    automatic_topup: AutomaticTopup | None
    changed_by: str
    idempotency_key: str


class AssignDepositAddress(CommandBase, frozen=True, kw_only=True, tag=True):
    """Give the account an address for coins. The caller chooses an index that was not used; the database holds it to
    that."""

    index: int
    address: str
    key_fingerprint: str
    idempotency_key: str


class ChangePlan(CommandBase, frozen=True, kw_only=True, tag=True):
    """Price the account's requests for this plan; None = the list price."""

    plan: str | None
    changed_by: str
    idempotency_key: str


class CreateKey(CommandBase, frozen=True, kw_only=True, tag=True):
    key_id: str
    rate_limit_rpm: int | None = None
    monthly_budget_microcents: Microcents | None = None


class DeleteKey(CommandBase, frozen=True, kw_only=True, tag=True):
    key_id: str


class PlaceHold(CommandBase, frozen=True, kw_only=True, tag=True):
    """Set aside the most that a request can cost. An amount of zero is for models whose price is zero."""

    hold_id: str
    amount_microcents: Microcents
    operation: str
    model: str
    price: PriceRef
    worker_id: int
    lifetime_s: int
    key_id: str | None = None
    request_id: str | None = None
    plan: str | None = None  # that the amount was priced for
    exchange_rate: Decimal | None = None  # that it was converted at; None = the price was in the account's currency
    retry_count: int = 0  # how often the client says that it tried before


class ExtendHold(CommandBase, frozen=True, kw_only=True, tag=True):
    """Raise what was placed under an open hold, draws included, to ``total_microcents``, and prolong it."""

    hold_id: str
    total_microcents: Microcents
    lifetime_s: int


class DrawHold(CommandBase, frozen=True, kw_only=True, tag=True):
    """Charge a part of an open hold; ``reference`` names the part, and is charged once."""

    hold_id: str
    reference: str
    amount_microcents: Microcents
    usage: dict[str, Any]


class SettleHold(CommandBase, frozen=True, kw_only=True, tag=True):
    """End a hold by charging what was used, be it less or more than is held."""

    hold_id: str
    amount_microcents: Microcents
    usage: dict[str, Any]
    outcome: str = "completed"
    backend: str | None = None
    served: dict[str, Any] | None = None  # what the gate says of how the request was served
    key_id: str | None = None  # the hold's: one that expired is not there to bring it
    may_be_late: bool = True  # charge it also when the hold has expired


class VoidHold(CommandBase, frozen=True, kw_only=True, tag=True):
    """End a hold without a charge."""

    hold_id: str
    reason: str
    served: dict[str, Any] | None = None


class ExpireHold(CommandBase, frozen=True, kw_only=True, tag=True):
    """End a hold without a charge because nobody is left to settle it."""

    hold_id: str
    reason: str
    overdue_at: datetime | None = None  # when its time was seen to be out; None = ended whatever its time


class RerateCharge(CommandBase, frozen=True, kw_only=True, tag=True):
    """Correct what a settlement or a draw amounts to. A charge's corrections are numbered, so that of two that begin
    from the same amount one is carried out and the other is refused, whatever they say."""

    hold_id: str
    ordinal: int  # 1 for the charge's first correction
    amount_microcents: Microcents  # that the charge is to have
    price: PriceRef  # that gives it
    reason: str
    rerated_by: str
    reference: str | None = None  # of a draw; None = the settlement
    key_id: str | None = None  # the charge's


class RecordPriceEvent(CommandBase, frozen=True, kw_only=True, tag=True):
    """Append a fact to the price book. Its key names the fact, so that a version is published once."""

    event: PriceBookEvent
    idempotency_key: str


HoldCommand = PlaceHold | ExtendHold | DrawHold | SettleHold | VoidHold | ExpireHold | RerateCharge
TopupCommand = RequestTopup | MarkTopupPending | CreditTopup | ReverseTopup | ReinstateTopup | FailTopup | ExpireTopup
KeyCommand = CreateKey | DeleteKey
KeyedCommand = GrantCredit | AdjustBalance | AssignDepositAddress | ChangeAutomaticTopup | ChangePlan | RecordPriceEvent
Command = OpenAccount | KeyCommand | HoldCommand | TopupCommand | ExpireGrant | KeyedCommand | ProviderCommand

_encode = msgspec.json.Encoder(order="deterministic").encode


def request_hash(command: Command) -> bytes:
    """SHA-256 of everything the command says: what an idempotency key is bound to."""
    return hashlib.sha256(_encode(command)).digest()
