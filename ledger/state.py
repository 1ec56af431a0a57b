"""What the events add up to: the states that a decision needs, and nothing else.

``Scope`` is what one command touches. ``Books`` keeps the states of many; it is what the committer loads for a
group, what a rebuild fills, and what a check compares with the stored rows.
"""

from datetime import datetime
from decimal import Decimal
from typing import Literal

import msgspec
from msgspec.structs import replace

from ledger.events import AutomaticTopup, Event, GrantShare, Paid, PriceRef, ReversalKind
from ledger.grants import Grant, due_at, with_expired
from ledger.money import ZERO, Microcents
from ledger.providers import PayoutState

#: ISO 4217 for "no currency": in the streams of the price book and of payment providers is nobody's money.
NO_CURRENCY = "XXX"


class AccountState(msgspec.Struct, frozen=True, kw_only=True):
    """One stream: its place in the log, and its money in microcents. credited = available + held + spent + lapsed.

    It is as of its last event; ``as_of`` says what time has made of it since.
    """

    account_id: str
    currency: str
    seq: int
    at: datetime  # of its last event
    credited: Microcents  # grants, top-ups and adjustments, less what was taken back
    spent: Microcents  # all charges
    held: Microcents  # all open holds
    plan: str | None = None  # whose prices it pays; None = the list price
    automatic_topup: AutomaticTopup | None = None  # None = only when somebody asks for it
    grants: tuple[Grant, ...] = ()  # open credit grants, in the order in which charges take from them
    grants_due: datetime | None = None  # when something of them expires, or has lapsed; None = never

    @property
    def posted(self) -> Microcents:
        """The balance: all postings summed."""
        return Microcents(self.credited - self.spent)

    @property
    def lapsed(self) -> Microcents:
        """What has expired of grants and is still on the books."""
        return Microcents(sum(grant.lapsed for grant in self.grants))

    @property
    def available(self) -> Microcents:
        """What a new hold can take. Below zero only by debt: usage above its hold that nothing covered, or a top-up
        that was taken back after it was spent; also debt that a grant stood in for until it expired."""
        free = self.credited - self.spent - self.held
        return Microcents(free - self.lapsed if self.grants else free)

    @property
    def granted(self) -> Microcents:
        """What grants still pay for."""
        return Microcents(sum(grant.left for grant in self.grants))

    @property
    def paid(self) -> Microcents:
        """The paid money that is not spent, be it held; below zero by debt."""
        return Microcents(self.posted - self.granted - self.lapsed)

    @property
    def refundable(self) -> Microcents:
        """The paid money that is neither spent nor held: what is held leans on grants first."""
        return Microcents(max(min(self.paid, self.available), 0))

    @property
    def debt(self) -> Microcents:
        """What must be paid before the next hold."""
        return Microcents(max(-self.available, 0))

    def as_of(self, at: datetime) -> "AccountState":
        """The account at a moment after its last event: what has expired by then pays for no new hold."""
        if self.grants_due is None or self.grants_due > at:
            return self
        grants = with_expired(self.grants, at, held=self.held)
        return replace(self, grants=grants, grants_due=due_at(grants))


class KeyState(msgspec.Struct, frozen=True, kw_only=True):
    """One key: its limits and what counts against them."""

    key_id: str
    account_id: str
    is_active: bool
    rate_limit_rpm: int | None
    monthly_budget: Microcents | None
    month: str  # the month that the two sums below are of
    month_spent: Microcents
    month_held: Microcents
    next_arrival: datetime | None  # theoretical arrival time of the rate limit
    created_at: datetime
    last_used_at: datetime | None


class HoldState(msgspec.Struct, frozen=True, kw_only=True):
    """One open hold. An ended hold has no state."""

    hold_id: str
    account_id: str
    key_id: str | None
    held: Microcents  # still set aside
    drawn: Microcents  # charged by draws so far
    operation: str
    model: str
    program: str
    program_version: int
    program_digest: str
    worker_id: int
    request_id: str | None
    budget_month: str
    placed_at: datetime
    expires_at: datetime

    @property
    def price(self) -> PriceRef:
        return PriceRef(program=self.program, version=self.program_version, digest=self.program_digest)


class TopupState(msgspec.Struct, frozen=True, kw_only=True):
    """One top-up. It is credited at most once, and what was taken back of it is never more than was credited."""

    topup_id: str
    account_id: str
    provider: str
    status: Literal["requested", "pending", "credited", "failed", "expired"]  # credited stays, whatever is taken back
    amount: Microcents  # that is credited once it is paid
    asked_currency: str
    asked_amount: Decimal  # in the major unit
    requested_by: str
    requested_at: datetime
    reference: str | None = None  # the provider's id of the order or of the payment under way
    payment_id: str | None = None  # the provider's id of what it was credited for; None = it was not
    credited_at: datetime | None = None
    refunded: Microcents = ZERO  # of the amount, still taken back
    disputed: Microcents = ZERO
    reorganised: Microcents = ZERO

    @property
    def asked(self) -> Paid:
        return Paid(self.asked_currency, self.asked_amount)

    @property
    def reversed(self) -> Microcents:
        """What is taken back by now, in all ways together."""
        return Microcents(self.refunded + self.disputed + self.reorganised)

    def reversed_by(self, kind: ReversalKind) -> Microcents:
        """What is taken back by now in this way."""
        return Microcents(getattr(self, REVERSED[kind]))


#: Where a top-up keeps what was taken back in each way.
REVERSED: dict[ReversalKind, str] = {"refund": "refunded", "dispute": "disputed", "reorganisation": "reorganised"}


class ChargeState(msgspec.Struct, frozen=True, kw_only=True):
    """One settlement or draw as it stands. No table keeps it: it is read from its event or from its last correction."""

    seq: int  # of the charge in its stream
    corrections: int
    amount: Microcents  # after them
    operation: str
    model: str
    placed_at: datetime
    key_id: str | None
    from_grants: tuple[GrantShare, ...] = ()  # what of the amount grants pay


class Scope(msgspec.Struct, frozen=True):
    """What one command touches: the stream's state, and the key, the hold, the charge and the top-up it names where
    they exist.

    What an event does to the states depends on the account, the key, the hold and the top-up only.
    """

    account: AccountState | None = None
    key: KeyState | None = None
    hold: HoldState | None = None
    charge: ChargeState | None = None  # of a correction
    expired: HoldState | None = None  # of a settlement: its hold, where that expired and was not settled since
    topup: TopupState | None = None
    paid_for: str | None = None  # of a crediting: the top-up that its payment was credited to before
    payout: PayoutState | None = None  # of a provider's command


class Books:
    """The states of many accounts by id, and which of them changed."""

    def __init__(self) -> None:
        self.accounts: dict[str, AccountState] = {}
        self.keys: dict[str, KeyState] = {}
        self.holds: dict[str, HoldState] = {}
        self.topups: dict[str, TopupState] = {}

    def scope_of(self, stream_id: str, event: Event) -> Scope:
        """The scope of an event of this stream."""
        return self.scope(
            stream_id,
            getattr(event, "key_id", None),
            getattr(event, "hold_id", None),
            getattr(event, "topup_id", None),
        )

    def scope(self, stream_id: str, key_id: str | None, hold_id: str | None, topup_id: str | None = None) -> Scope:
        """The scope of a command or event that names these; an open hold brings its own key."""
        hold = self.holds.get(hold_id) if hold_id is not None else None
        if hold is not None:
            key_id = hold.key_id
        key = self.keys.get(key_id) if key_id is not None else None
        topup = self.topups.get(topup_id) if topup_id is not None else None
        return Scope(self.accounts.get(stream_id), key, hold, topup=topup)

    def put(self, before: Scope, after: Scope) -> None:
        """Replace the states of one scope by what an event made of them."""
        if after.account is not None:
            self.accounts[after.account.account_id] = after.account
        if after.key is not None:
            self.keys[after.key.key_id] = after.key
        if after.hold is not None:
            self.holds[after.hold.hold_id] = after.hold
        elif before.hold is not None:
            del self.holds[before.hold.hold_id]
        if after.topup is not None:
            self.topups[after.topup.topup_id] = after.topup
