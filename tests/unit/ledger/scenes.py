"""Short words for the commands of a test, all about one account unless told otherwise."""

from datetime import UTC, datetime
from typing import Any

from ledger import (
    PRICE_BOOK,
    AdjustBalance,
    CreateKey,
    DeleteKey,
    DrawHold,
    ExpireHold,
    ExtendHold,
    GrantCredit,
    OpenAccount,
    RecordPriceEvent,
    RerateCharge,
    SettleHold,
    VoidHold,
)
from ledger.events import ProgramPublished
from tests.strategies import PRICE, place_hold
from tests.unit.ledger.paper_log import PaperLog, Result, as_bytes

A, B = "acct_a", "acct_b"
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def open_account(account: str = A, currency: str = "USD") -> OpenAccount:
    return OpenAccount(stream_id=account, currency=currency)


def grant(amount: int, key: str = "grant", *, account: str = A) -> GrantCredit:
    return GrantCredit(
        stream_id=account, amount_microcents=amount, reason="trial", granted_by="user_1", idempotency_key=key
    )


def adjust(amount: int, key: str = "adjustment") -> AdjustBalance:
    return AdjustBalance(
        stream_id=A, amount_microcents=amount, reason="goodwill", adjusted_by="user_1", idempotency_key=key
    )


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
