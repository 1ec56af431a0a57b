"""The commands that the bench gives to a ledger: those of an account that pays for one request after the other."""

from ledger import GrantCredit, Microcents, PlaceHold, PriceRef, SettleHold

_PRICE = PriceRef(program="bench", version=1, digest="0" * 64)


def grant(account: str) -> GrantCredit:
    """More than any run of the bench spends."""
    return GrantCredit(
        stream_id=account,
        amount_microcents=Microcents(10**15),
        reason="bench",
        granted_by="bench",
        idempotency_key="bench",
    )


def place(account: str, hold_id: str, *, worker_id: int = 1, lifetime_s: int = 600) -> PlaceHold:
    """One cent for a chat completion."""
    return PlaceHold(
        stream_id=account,
        hold_id=hold_id,
        amount_microcents=Microcents(1_000_000),
        operation="chat.completions",
        model="bench",
        price=_PRICE,
        worker_id=worker_id,
        lifetime_s=lifetime_s,
    )


def settle(account: str, hold_id: str) -> SettleHold:
    """A hundredth of that was used."""
    usage = {"input_tokens": 412, "cached_input_tokens": 0, "output_tokens": 64}
    return SettleHold(stream_id=account, hold_id=hold_id, amount_microcents=Microcents(10_000), usage=usage)
