"""What a notice says: from an event to the body that is signed. Pure.

``{"type", "timestamp", "data"}``, as Standard Webhooks has it: the type, when it happened, and money in cents as in all
our answers. Why a provider refused or took back is not said: its words are for the operator.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final, Literal, get_args

import msgspec
from msgspec.structs import replace

from ledger import Microcents
from ledger.events import Event, GrantExpired, TopupCredited, TopupExpired, TopupFailed, TopupReinstated, TopupReversed
from ledger.money import ZERO
from wire import Cents, cents_of

NoticeType = Literal[
    "topup.credited",
    "topup.failed",
    "topup.expired",
    "topup.reversed",
    "topup.reinstated",
    "grant.expired",
    "balance.low",
]
LOW_BALANCE: Final = "balance.low"
#: What a test sends. No endpoint can leave it out.
TEST: Final = "webhook.test"

#: Types of events that are a notice by themselves, under the same name.
TOLD_EVENTS: Final = tuple(type_ for type_ in get_args(NoticeType) if type_ != LOW_BALANCE)


class Noteworthy(msgspec.Struct, frozen=True, kw_only=True):
    """An event that is told of, with what its notices say besides."""

    position: int
    account_id: str
    at: datetime
    event: Event
    currency: str  # of the account
    posted: Microcents | None  # after it; None, as the next: it moved no money
    held: Microcents | None
    crossed: Microcents | None  # the threshold that it took the posted balance below; None: it did not
    source: str | None  # of a top-up: who is paid
    asked: Microcents | None  # of a top-up: what is to be credited for it


class Envelope(msgspec.Struct, frozen=True):
    type: str
    timestamp: datetime
    data: Any


class TopupData(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    account_id: str
    topup_id: str
    source: str | None
    currency: str
    amount_cents: Cents  # credited, asked for in vain, taken back, or given back
    balance_cents: Cents | None = None  # posted, after it
    reference_id: str | None = None  # the provider's id of the payment
    kind: str | None = None  # of a reversal: refund, dispute or reorganisation
    reversed_cents: Cents | None = None  # taken back in this way by now


class GrantData(msgspec.Struct, frozen=True, kw_only=True):
    account_id: str
    grant_id: str
    currency: str
    amount_cents: Cents  # that expired unspent
    balance_cents: Cents  # posted, after it


class LowBalanceData(msgspec.Struct, frozen=True, kw_only=True):
    account_id: str
    currency: str
    threshold_cents: Cents
    balance_cents: Cents  # posted
    held_cents: Cents
    available_cents: Cents


class TestData(msgspec.Struct, frozen=True):
    account_id: str
    endpoint_id: str


_encode = msgspec.json.Encoder(decimal_format="number").encode


def bodies_of(noted: Noteworthy) -> Iterator[tuple[str, str]]:
    """The types and bodies of the notices that one event makes: of itself, of the balance, or of both."""
    told = _grant_data(noted, noted.event) if isinstance(noted.event, GrantExpired) else _topup_data(noted)
    if told is not None:
        type_ = str(noted.event.__struct_config__.tag)
        yield type_, body_of(type_, noted.at, told)
    if noted.crossed is not None:
        posted, held = noted.posted or ZERO, noted.held or ZERO
        data = LowBalanceData(
            account_id=noted.account_id,
            currency=noted.currency,
            threshold_cents=cents_of(noted.crossed),
            balance_cents=cents_of(posted),
            held_cents=cents_of(held),
            available_cents=cents_of(Microcents(posted - held)),
        )
        yield LOW_BALANCE, body_of(LOW_BALANCE, noted.at, data)


def body_of(type_: str, at: datetime, data: msgspec.Struct) -> str:
    """The body, to the byte as it is signed and sent, each time it is."""
    return _encode(Envelope(type_, at, data)).decode()


def _grant_data(noted: Noteworthy, event: GrantExpired) -> GrantData:
    return GrantData(
        account_id=noted.account_id,
        grant_id=event.grant_id,
        currency=noted.currency,
        amount_cents=cents_of(event.amount_microcents),
        balance_cents=cents_of(noted.posted or ZERO),
    )


def _topup_data(noted: Noteworthy) -> TopupData | None:
    match noted.event:
        case TopupCredited() as event:
            credited = _about(noted, event.topup_id, event.amount_microcents)
            return replace(credited, reference_id=event.payment_id)
        case TopupReversed() | TopupReinstated() as event:
            taken_back = _about(noted, event.topup_id, event.amount_microcents)
            return replace(taken_back, kind=event.kind, reversed_cents=cents_of(event.total_microcents))
        case TopupFailed() | TopupExpired() as event:
            return _about(noted, event.topup_id, noted.asked or ZERO)
        case _:
            return None


def _about(noted: Noteworthy, topup_id: str, amount: Microcents) -> TopupData:
    return TopupData(
        account_id=noted.account_id,
        topup_id=topup_id,
        source=noted.source,
        currency=noted.currency,
        amount_cents=cents_of(amount),
        balance_cents=None if noted.posted is None else cents_of(noted.posted),
    )
