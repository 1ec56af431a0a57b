"""Every event there is: the list of things that can happen to money, limits and prices.

An event is an immutable fact of one stream. A stream is an account (its id is the stream's id), the price book
(``PRICE_BOOK``), or a payment provider, whose events are in ``providers.py``; within it events are numbered by a
gapless ``seq``. The stored shape is append-only: new fields get defaults, no field changes its meaning or type; a
changed meaning is a new event type.

Amounts are microcents of the account's currency, or of the one that the event names, and never negative; which side
they take is said by the posting rules (``migrations``), never by a sign.
"""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, Literal

import msgspec

from ledger.bases import EventBase
from ledger.money import Microcents
from ledger.providers import ProviderEvent

#: The stream of the price book. Account ids begin with ``acct_``, so that it can never be one.
PRICE_BOOK: Final = "prices"


# --- accounts and the money on them


class AccountOpened(EventBase, frozen=True, kw_only=True, tag="account.opened"):
    currency: str  # ISO 4217, for ever


#: Of a grant that says nothing of it, as for the credit grants of Stripe's billing: 0 is spent first, 100 last.
PRIORITY: Final = 50
LAST_PRIORITY: Final = 100


class CreditGranted(EventBase, frozen=True, kw_only=True, tag="credit.granted"):
    """Credit given by the seller: spent before paid money, and never refundable, because nobody paid for it."""

    amount_microcents: Microcents
    reason: str
    granted_by: str  # id of the user or service token that granted it
    grant_id: str | None = None  # None: granted before grants had terms; it counts as paid money
    expires_at: datetime | None = None  # None = never
    priority: int = PRIORITY  # the lower, the earlier it is spent


class GrantExpired(EventBase, frozen=True, kw_only=True, tag="grant.expired"):
    """What was left of a grant when it expired. What open holds leant on goes, as they end, by further events."""

    grant_id: str
    amount_microcents: Microcents


class GrantShare(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What of an amount one grant pays, and the grant's terms, in case that it is given back to it."""

    grant_id: str
    amount_microcents: Microcents
    priority: int
    expires_at: datetime | None = None


class BalanceAdjusted(EventBase, frozen=True, kw_only=True, tag="balance.adjusted"):
    """A correction by hand. Exactly one of the two amounts is above zero."""

    credited_microcents: Microcents
    debited_microcents: Microcents
    reason: str
    adjusted_by: str
    from_grants: tuple[GrantShare, ...] = ()  # what of the debit was taken of grants, because it was not paid money


# --- top-ups: money that a customer pays in through a payment provider


class Paid(msgspec.Struct, frozen=True):
    """Money as a provider moves it."""

    currency: str  # the provider's own word for it, such as an ISO 4217 code
    amount: Decimal  # in the currency's major unit, exact

    def __str__(self) -> str:
        return f"{self.amount:f} {self.currency}"


#: Why a provider takes back what it had paid: the seller's refund, the payer's dispute, a chain that forgot a block.
ReversalKind = Literal["refund", "dispute", "reorganisation"]


class TopupRequested(EventBase, frozen=True, kw_only=True, tag="topup.requested"):
    """A customer wants to pay. Nothing is credited yet."""

    topup_id: str
    provider: str  # that is asked for the money, and whose payment alone counts
    amount_microcents: Microcents  # to be credited once it is paid
    asked: Paid  # what the customer is to pay for it
    requested_by: str
    exchange_rate: Decimal | None = None  # units of the account's currency for one of the asked; None: the same one
    rate_source: str | None = None  # who said so, and when


class TopupPending(EventBase, frozen=True, kw_only=True, tag="topup.pending"):
    """The provider knows of it: there is an order, or a payment is under way."""

    topup_id: str
    reference: str  # the provider's id of that


class TopupCredited(EventBase, frozen=True, kw_only=True, tag="topup.credited"):
    """What was asked for was paid; also when the top-up had failed or expired before."""

    topup_id: str
    provider: str
    payment_id: str  # the provider's id of the payment itself; a payment is credited once
    amount_microcents: Microcents
    paid: Paid


class TopupReversed(EventBase, frozen=True, kw_only=True, tag="topup.reversed"):
    """The provider took some of it back, whatever is left of it: what was spent already is debt."""

    topup_id: str
    kind: ReversalKind
    amount_microcents: Microcents  # this time
    total_microcents: Microcents  # of this kind, with it
    reason: str


class TopupReinstated(EventBase, frozen=True, kw_only=True, tag="topup.reinstated"):
    """The provider gave back what it had taken: a dispute was won."""

    topup_id: str
    kind: ReversalKind
    amount_microcents: Microcents  # this time
    total_microcents: Microcents  # of this kind, that is still taken back after it
    reason: str


class TopupFailed(EventBase, frozen=True, kw_only=True, tag="topup.failed"):
    """The provider refused the payment, or the order."""

    topup_id: str
    reason: str


class TopupExpired(EventBase, frozen=True, kw_only=True, tag="topup.expired"):
    """Nobody paid in time."""

    topup_id: str


class AutomaticTopup(msgspec.Struct, frozen=True, kw_only=True):
    """When an account is to be topped up without being asked, and by how much."""

    threshold: Microcents  # below which the available balance has to fall
    amount: Microcents  # of each top-up
    monthly_cap: Microcents  # of all of them in a calendar month, UTC


class AutomaticTopupChanged(EventBase, frozen=True, kw_only=True, tag="automatic_topup.changed"):
    """From here on the account is topped up in this way; all three None = only when somebody asks for it."""

    threshold_microcents: Microcents | None
    amount_microcents: Microcents | None
    monthly_cap_microcents: Microcents | None
    changed_by: str


class DepositAddressAssigned(EventBase, frozen=True, kw_only=True, tag="deposit_address.assigned"):
    """Coins that are sent to this address are the account's, for ever. An account may have several."""

    index: int  # in the path that the address is derived by; used once in a log shard, whatever the key
    address: str  # with its checksum
    key_fingerprint: str  # hex, of the extended public key that it is derived from


# --- keys and their limits


class KeyCreated(EventBase, frozen=True, kw_only=True, tag="key.created"):
    key_id: str
    rate_limit_rpm: int | None = None  # requests per minute; None = unlimited
    monthly_budget_microcents: Microcents | None = None  # None = unlimited


class KeyDeleted(EventBase, frozen=True, kw_only=True, tag="key.deleted"):
    key_id: str


# --- holds: the two-phase debit of one request


class PriceRef(msgspec.Struct, frozen=True, kw_only=True):
    """The exact price program a hold was priced with; pinned for the life of the hold."""

    program: str
    version: int
    digest: str  # hex SHA-256 of the program's text


class PlanChanged(EventBase, frozen=True, kw_only=True, tag="plan.changed"):
    """From here on the account's requests are priced for this plan; None = the list price."""

    plan: str | None
    changed_by: str


class HoldPlaced(EventBase, frozen=True, kw_only=True, tag="hold.placed"):
    hold_id: str
    amount_microcents: Microcents
    operation: str  # a row of the table of metered operations, e.g. "chat.completions"
    model: str
    price: PriceRef
    worker_id: int  # whose lease guards the hold
    expires_at: datetime
    budget_month: str  # "2026-11": the month, UTC, whose key budget this hold counts against
    key_id: str | None = None
    request_id: str | None = None
    next_arrival: datetime | None = None  # of the key's rate limit after this request, see ledger.limits
    plan: str | None = None  # that it was priced for
    exchange_rate: Decimal | None = None  # by which the price became the account's currency; None = it was in it
    retry_count: int = 0  # how often the client says that it tried before


class HoldExtended(EventBase, frozen=True, kw_only=True, tag="hold.extended"):
    """More money set aside under an open hold."""

    hold_id: str
    amount_microcents: Microcents  # added
    expires_at: datetime


class HoldDrawn(EventBase, frozen=True, kw_only=True, tag="hold.drawn"):
    """A part of an open hold charged: one finished task of a batch."""

    hold_id: str
    reference: str  # the task; one draw per reference of a hold
    amount_microcents: Microcents
    operation: str
    model: str
    placed_at: datetime
    price: PriceRef
    usage: dict[str, Any]
    key_id: str | None = None
    request_id: str | None = None
    from_grants: tuple[GrantShare, ...] = ()  # what of the amount grants paid; paid money paid the rest


class HoldEnd(EventBase, frozen=True, kw_only=True):
    """What every end of a hold says. Ends carry what the hold said, so that a usage line needs one event only."""

    hold_id: str
    held_microcents: Microcents  # what was still set aside: placed + extended - drawn
    operation: str
    model: str
    placed_at: datetime
    key_id: str | None = None
    request_id: str | None = None


class HoldSettled(HoldEnd, frozen=True, kw_only=True, tag="hold.settled"):
    """The hold ended by a charge of exactly what was used. held + overrun = amount + released.

    The lines of the receipt are not stored: the program and the usage give them again, always the same.
    """

    amount_microcents: Microcents
    released_microcents: Microcents  # unused part, available again
    overrun_microcents: Microcents  # above the hold: a bound was wrong; charged all the same
    debt_microcents: Microcents  # the part of the overrun that the free balance did not cover
    price: PriceRef
    usage: dict[str, Any]
    outcome: str = "completed"  # how the request ended: completed, client_gone, backend_failed …
    backend: str | None = None
    served: dict[str, Any] | None = None  # what the gate says of how the request was served; no money is in it
    from_grants: tuple[GrantShare, ...] = ()  # as of a draw


class HoldVoided(HoldEnd, frozen=True, kw_only=True, tag="hold.voided"):
    """The hold ended without a charge: nothing was served."""

    reason: str
    served: dict[str, Any] | None = None  # as of a settlement


class HoldExpired(HoldEnd, frozen=True, kw_only=True, tag="hold.expired"):
    """The hold ended without a charge because its worker died or its time ran out."""

    reason: str


class HoldSettledLate(EventBase, frozen=True, kw_only=True, tag="hold.settled_late"):
    """The charge of a hold that had expired before its settlement came: the request was served all the same.

    Nothing is set aside for it any more, so it is taken from the free balance, and the rest is debt. No other hold is
    touched.
    """

    hold_id: str
    amount_microcents: Microcents
    debt_microcents: Microcents  # the part of the amount that the free balance did not cover
    operation: str
    model: str
    placed_at: datetime
    price: PriceRef
    usage: dict[str, Any]
    outcome: str = "completed"  # as of a settlement
    backend: str | None = None
    served: dict[str, Any] | None = None
    key_id: str | None = None
    request_id: str | None = None
    from_grants: tuple[GrantShare, ...] = ()  # as of a draw


class ChargeRerated(EventBase, frozen=True, kw_only=True, tag="charge.rerated"):
    """A charge corrected, because the program that priced it was the wrong one. after = before + charged - refunded.

    One of the two is zero. The usage is that of the charge itself, the event of this stream at ``charge_seq``; what
    the charge amounts to since is said by its last correction.
    """

    hold_id: str
    charge_seq: int  # of the settlement or draw that is corrected
    ordinal: int  # of the charge's corrections this is the first, the second …
    before_microcents: Microcents
    after_microcents: Microcents
    charged_microcents: Microcents
    refunded_microcents: Microcents
    operation: str
    model: str
    placed_at: datetime
    price: PriceRef  # that gives ``after_microcents``
    reason: str
    rerated_by: str
    reference: str | None = None  # of a draw; None = the settlement
    key_id: str | None = None
    from_grants: tuple[GrantShare, ...] = ()  # what of ``after_microcents`` grants pay
    grants_moved: tuple[GrantShare, ...] = ()  # what this correction took of grants, or gave back to them


# --- the price book


class ProgramPublished(EventBase, frozen=True, kw_only=True, tag="program.published"):
    """A version of a price program, immutable: the same id and version never mean another text."""

    program: str
    version: int
    text: str
    digest: str  # hex SHA-256 of the text's UTF-8 bytes
    published_by: str


class ProgramAssigned(EventBase, frozen=True, kw_only=True, tag="program.assigned"):
    """From ``effective_from`` on, a program prices a model's operation. The latest fitting assignment wins."""

    program: str
    version: int
    model: str
    effective_from: datetime
    effective_until: datetime | None = None
    operation: str | None = None  # None = every operation of the model
    plan: str | None = None  # None = the list price
    account_id: str | None = None  # None = every account
    assigned_by: str


class ProgramRetired(EventBase, frozen=True, kw_only=True, tag="program.retired"):
    """From ``effective_from`` on, no assignment of this program version prices anything."""

    program: str
    version: int
    effective_from: datetime
    retired_by: str


class RatePublished(EventBase, frozen=True, kw_only=True, tag="rate.published"):
    """From ``effective_from`` on, prices in ``currency`` are charged to accounts in another at this rate."""

    currency: str  # ISO 4217, of programs
    account_currency: str  # ISO 4217
    rate: Decimal  # units of the account's currency for one of the program's
    effective_from: datetime
    published_by: str


TopupEvent = (
    TopupRequested | TopupPending | TopupCredited | TopupReversed | TopupReinstated | TopupFailed | TopupExpired
)
AccountEvent = (
    AccountOpened
    | CreditGranted
    | GrantExpired
    | BalanceAdjusted
    | TopupEvent
    | DepositAddressAssigned
    | AutomaticTopupChanged
    | PlanChanged
    | KeyCreated
    | KeyDeleted
    | HoldPlaced
    | HoldExtended
    | HoldDrawn
    | HoldSettled
    | HoldVoided
    | HoldExpired
    | HoldSettledLate
    | ChargeRerated
)
PriceBookEvent = ProgramPublished | ProgramAssigned | ProgramRetired | RatePublished
Event = AccountEvent | PriceBookEvent | ProviderEvent

#: What a hold is charged by: any number of draws, and at most one settlement.
Charge = HoldSettled | HoldSettledLate | HoldDrawn


class StoredEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event with its place in the log."""

    position: int  # gapless within the log shard, in commit order
    stream_id: str
    seq: int  # gapless within the stream
    at: datetime  # when it happened, UTC; never before the stream's event before it
    event: Event
    balance_microcents: Microcents | None = None  # posted balance after a money event


#: Exact both ways: a Decimal in a usage is stored as a JSON number, and a JSON fraction is read as a Decimal.
encode_event = msgspec.json.Encoder(decimal_format="number").encode
decode_event: Callable[[str], Event] = msgspec.json.Decoder(Event, float_hook=Decimal).decode
