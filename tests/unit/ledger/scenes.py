"""Short words for the commands of a test, all about one account unless told otherwise."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from ledger import (
    PRICE_BOOK,
    AdjustBalance,
    AutomaticTopup,
    ChangeAutomaticTopup,
    CreateKey,
    CreditTopup,
    DeleteKey,
    DrawHold,
    ExpireHold,
    ExpireTopup,
    ExtendHold,
    FailTopup,
    GrantCredit,
    MarkTopupPending,
    OpenAccount,
    Paid,
    RecordPriceEvent,
    ReinstateTopup,
    RequestTopup,
    RerateCharge,
    ReverseTopup,
    SettleHold,
    VoidHold,
)
from ledger.events import ProgramPublished, ReversalKind
from ledger.money import Microcents
from tests.strategies import PRICE, grant_credit, place_hold
from tests.unit.ledger.paper_log import PaperLog, Result, as_bytes

A, B = "acct_a", "acct_b"
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
TEN_DOLLARS = Paid("USD", Decimal("10.00"))


def open_account(account: str = A, currency: str = "USD") -> OpenAccount:
    return OpenAccount(stream_id=account, currency=currency)


def grant(amount: int, key: str = "grant", *, account: str = A, **terms: Any) -> GrantCredit:
    return grant_credit(stream_id=account, amount_microcents=amount, idempotency_key=key, **terms)


def adjust(amount: int, key: str = "adjustment") -> AdjustBalance:
    return AdjustBalance(
        stream_id=A, amount_microcents=amount, reason="goodwill", adjusted_by="user_1", idempotency_key=key
    )


def top_up_below(
    threshold: int | None, amount: int = 100, monthly_cap: int = 1000, *, key: str = "automatic", account: str = A
) -> ChangeAutomaticTopup:
    """Top the account up below this threshold; None = never."""
    wanted = None
    if threshold is not None:
        wanted = AutomaticTopup(
            threshold=Microcents(threshold), amount=Microcents(amount), monthly_cap=Microcents(monthly_cap)
        )
    return ChangeAutomaticTopup(stream_id=account, automatic_topup=wanted, changed_by="user_1", idempotency_key=key)


def request_topup(
    topup_id: str = "topup_1", amount: int = 100, *, asked: Paid = TEN_DOLLARS, account: str = A, key: str | None = None
) -> RequestTopup:
    return RequestTopup(
        stream_id=account,
        topup_id=topup_id,
        provider="stripe",
        amount_microcents=amount,
        asked=asked,
        requested_by="user_1",
        idempotency_key=key or topup_id,
    )


def mark_pending(topup_id: str = "topup_1", reference: str = "cs_1", *, account: str = A) -> MarkTopupPending:
    return MarkTopupPending(stream_id=account, topup_id=topup_id, reference=reference)


def credit(topup_id: str = "topup_1", payment_id: str = "pi_1", *, account: str = A, **fields: Any) -> CreditTopup:
    said = {"provider": "stripe", "paid": TEN_DOLLARS, **fields}
    return CreditTopup(stream_id=account, topup_id=topup_id, payment_id=payment_id, **said)


def reverse(
    total: int, kind: ReversalKind = "refund", reason: str = "re_1", *, topup_id: str = "topup_1"
) -> ReverseTopup:
    return ReverseTopup(stream_id=A, topup_id=topup_id, kind=kind, total_microcents=total, reason=reason)


def reinstate(
    total: int, kind: ReversalKind = "dispute", reason: str = "dp_1 won", *, topup_id: str = "topup_1"
) -> ReinstateTopup:
    return ReinstateTopup(stream_id=A, topup_id=topup_id, kind=kind, total_microcents=total, reason=reason)


def fail_topup(topup_id: str = "topup_1", reason: str = "card_declined", *, account: str = A) -> FailTopup:
    return FailTopup(stream_id=account, topup_id=topup_id, reason=reason)


def expire_topup(topup_id: str = "topup_1", *, account: str = A) -> ExpireTopup:
    return ExpireTopup(stream_id=account, topup_id=topup_id)


def create_key(key_id: str = "key_1", *, rpm: int | None = None, budget: int | None = None, account: str = A) -> Any:
    return CreateKey(stream_id=account, key_id=key_id, rate_limit_rpm=rpm, monthly_budget_microcents=budget)


def delete_key(key_id: str = "key_1", *, account: str = A) -> DeleteKey:
    return DeleteKey(stream_id=account, key_id=key_id)


def place(hold_id: str, amount: int, **fields: Any) -> Any:
    return place_hold(**{"stream_id": A, "hold_id": hold_id, "amount_microcents": amount, **fields})


def extend(hold_id: str, total: int, *, lifetime_s: int = 60, account: str = A) -> ExtendHold:
    return ExtendHold(stream_id=account, hold_id=hold_id, total_microcents=total, lifetime_s=lifetime_s)


def draw(hold_id: str, amount: int, reference: str = "task_1", *, account: str = A) -> DrawHold:
    return DrawHold(
        stream_id=account, hold_id=hold_id, reference=reference, amount_microcents=amount, usage={"tokens": amount}
    )


def settle(
    hold_id: str, amount: int, *, usage: dict[str, Any] | None = None, account: str = A, **fields: Any
) -> SettleHold:
    return SettleHold(
        stream_id=account,
        hold_id=hold_id,
        amount_microcents=amount,
        usage={"tokens": 1} if usage is None else usage,
        **fields,
    )


def void(hold_id: str, *, account: str = A) -> VoidHold:
    return VoidHold(stream_id=account, hold_id=hold_id, reason="backend_failed")


def expire(hold_id: str, *, overdue_at: datetime | None = None, account: str = A) -> ExpireHold:
    return ExpireHold(stream_id=account, hold_id=hold_id, reason="time_limit", overdue_at=overdue_at)


def rerate(hold_id: str, amount: int, *, ordinal: int = 1, account: str = A, **fields: Any) -> RerateCharge:
    return RerateCharge(
        stream_id=account,
        hold_id=hold_id,
        ordinal=ordinal,
        amount_microcents=amount,
        price=PRICE,
        reason="wrong version",
        rerated_by="user_1",
        **fields,
    )


def publish(version: int = 1, *, stream_id: str = PRICE_BOOK) -> RecordPriceEvent:
    event = ProgramPublished(program="list", version=version, text="…", digest="cd" * 32, published_by="user_1")
    return RecordPriceEvent(stream_id=stream_id, event=event, idempotency_key=f"list@{version}")


class Scene:
    """A log and a clock; commands are submitted one group at a time."""

    def __init__(self, *commands: Any) -> None:
        self.log = PaperLog()
        self.now = NOON
        for command in commands:
            kind, detail = self.submit(command)
            assert kind == "accepted", detail

    def submit(self, command: Any) -> Result:
        return self.log.submit([command], self.now)[0]

    def group(self, *commands: Any) -> list[Result]:
        return self.log.submit(list(commands), self.now)

    def refusal(self, command: Any) -> Any:
        """Why the command is refused; nothing may have changed."""
        before = as_bytes(self.log.books)
        events = len(self.log.events)

        kind, detail = self.submit(command)

        assert kind == "refused", detail
        assert before == as_bytes(self.log.books)
        assert events == len(self.log.events)
        return detail

    def event(self, place: tuple[str, int]) -> Any:
        return self.log.stream(place[0])[place[1] - 1].event

    def last(self) -> Any:
        """The last event."""
        return self.log.events[-1].event

    def money(self, account: str = A) -> tuple[int, int, int]:
        """(available, held, debt)."""
        state = self.log.books.accounts[account]
        return state.available, state.held, state.debt


def funded(amount: int, *more: Any) -> Scene:
    """An open account with this much credit, and what else is to happen first."""
    return Scene(open_account(), grant(amount), *more)
