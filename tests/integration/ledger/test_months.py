"""A month ends while a ledger runs: what was begun in it counts in it, and the next one begins with nothing."""

from datetime import datetime, timedelta

import pytest

from ledger import KeyState, Ledger
from ledger.errors import BudgetExceeded
from tests.conftest import Clock
from tests.unit.ledger.scenes import A, create_key, extend, grant, open_account, place, settle

BUDGET = 100
SECOND = timedelta(seconds=1)


async def key_of(ledger: Ledger) -> KeyState:
    (key,) = await ledger.keys(A)
    return key


@pytest.mark.money_bug(44)
@pytest.mark.parametrize(
    ("last_second", "month", "next_month"),
    [
        ("2026-11-30T23:59:59+00:00", "2026-11", "2026-12"),
        ("2026-12-31T23:59:59+00:00", "2026-12", "2027-01"),
        ("2028-02-29T23:59:59+00:00", "2028-02", "2028-03"),
        ("2026-12-01T07:59:59+08:00", "2026-11", "2026-12"),
        ("2027-03-31T19:59:59-04:00", "2027-03", "2027-04"),
    ],
)
async def test_what_was_held_before_midnight_counts_in_the_old_month_and_leaves_the_new_one_whole(
    ledger: Ledger, clock: Clock, last_second: str, month: str, next_month: str
) -> None:
    clock.now = datetime.fromisoformat(last_second)
    for command in (open_account(), grant(1_000), create_key(budget=BUDGET)):
        await ledger.submit(command)
    await ledger.submit(place("hold_1", 60, key_id="key_1"))
    with pytest.raises(BudgetExceeded) as refused:
        await ledger.submit(place("hold_2", 41, key_id="key_1"))

    clock.now += SECOND
    await ledger.submit(place("hold_2", BUDGET, key_id="key_1"))
    await ledger.submit(extend("hold_1", 70))
    await ledger.submit(settle("hold_1", 65))
    key = await key_of(ledger)
    await ledger.submit(settle("hold_2", BUDGET))
    with pytest.raises(BudgetExceeded):
        await ledger.submit(place("hold_3", 1, key_id="key_1"))

    assert refused.value.resets_at == clock.now
    assert (key.month, key.month_spent, key.month_held) == (next_month, 0, BUDGET)
    charges = [each.event for each in await ledger.stream(A) if getattr(each.event, "hold_id", "") == "hold_1"]
    assert charges[-1].placed_at.strftime("%Y-%m") == month  # type: ignore[union-attr]
