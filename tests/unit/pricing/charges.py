"""Charges as they are read back from a ledger, and programs to price them by."""

from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from ledger import PriceRef
from ledger.charges import StoredCharge
from ledger.events import ChargeRerated, HoldDrawn, HoldSettled
from pricing import PricedProgram, parse_program

NOON = datetime(2026, 11, 7, 12, tzinfo=UTC)


def priced_by(meter: str, *, price: str = "1", version: int = 1, more: str = "") -> PricedProgram:
    """A program of one charge."""
    text = f'id = "p"\ncurrency = "USD"\n{more}\n[[charges]]\nname = "c"\nmeter = "{meter}"\nprice = {price}\n'
    program = parse_program(text)
    return PricedProgram(program, PriceRef(program="p", version=version, digest=program.digest))


def charge(
    amount: int,
    usage: dict[str, Any],
    *,
    hold_id: str = "hold_1",
    price: PriceRef | None = None,
    reference: str | None = None,
    placed_at: datetime = NOON,
    model: str = "m",
    **fields: Any,
) -> StoredCharge:
    """A settlement of this amount, or a draw where a reference is given."""
    common = {
        "hold_id": hold_id,
        "amount_microcents": amount,
        "operation": "chat.completions",
        "model": model,
        "placed_at": placed_at,
        "price": price or priced_by("pages").ref,
        "usage": usage,
    }
    event: HoldSettled | HoldDrawn
    if reference is None:
        event = HoldSettled(
            **common, held_microcents=amount, released_microcents=0, overrun_microcents=0, debt_microcents=0
        )
    else:
        event = HoldDrawn(**common, reference=reference)
    defaults = {"position": 1, "account_id": "acct_a", "currency": "USD", "available_microcents": 0, "at": NOON}
    return StoredCharge(**{**defaults, **fields}, event=event)


def corrected(stored: StoredCharge, amount: int, price: PriceRef) -> StoredCharge:
    """The charge after one more correction."""
    before = stored.amount_microcents
    correction = ChargeRerated(
        hold_id=stored.event.hold_id,
        charge_seq=1,
        ordinal=len(stored.corrections) + 1,
        before_microcents=before,
        after_microcents=amount,
        charged_microcents=max(amount - before, 0),
        refunded_microcents=max(before - amount, 0),
        operation=stored.event.operation,
        model=stored.event.model,
        placed_at=stored.event.placed_at,
        price=price,
        reason="wrong version",
        rerated_by="anna",
    )
    return replace(stored, corrections=(*stored.corrections, correction))
