"""Any sequence of commands through the real committer: what is stored equals the events, and equals the model."""

import asyncio
import itertools
from datetime import timedelta
from typing import Any

import asyncpg
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ledger import GrantCredit, Ledger, Refused
from ledger.events import encode_event
from tests import strategies
from tests.conftest import Clock
from tests.integration.ledger.stored import broken_rules, folded_books, stored_books
from tests.unit.ledger.model import Model
from tests.unit.ledger.scenes import create_key, grant, open_account, place, settle

_examples = itertools.count()

#: Groups of commands, and how far the clock moves before each.
steps = st.lists(
    st.tuples(
        strategies.clock_steps,
        st.lists(strategies.account_commands | strategies.topup_commands, min_size=1, max_size=5),
    ),
    max_size=12,
)
BEGIN = [open_account(), grant(150, "first"), create_key(rpm=6, budget=120), place("hold_1", 30), place("hold_2", 10)]


@settings(max_examples=80)
@given(usage=strategies.recorded_usages, reason=strategies.texts)
async def test_what_an_event_says_is_stored_to_the_byte_and_reads_back_the_same(
    ledger: Ledger, admin: asyncpg.Connection, usage: dict[str, Any], reason: str
) -> None:
    prefix = f"{next(_examples)}_"
    commands = [replace(command, reason=reason) if isinstance(command, GrantCredit) else command for command in BEGIN]
    for command in [*commands, settle("hold_1", 7, usage=usage)]:
        last = await ledger.submit(strategies.prefixed(command, prefix))

    stored = await ledger.stream(f"{prefix}acct_a")
    texts = await admin.fetch("SELECT payload::text FROM events WHERE stream_id = $1 ORDER BY seq", f"{prefix}acct_a")
    again = await ledger.submit(strategies.prefixed(settle("hold_1", 7, usage=usage), prefix))

    assert last.stored.event == stored[-1].event
    assert [encode_event(each.event).decode() for each in stored] == [row["payload"] for row in texts]
    assert (again.stored, again.replayed) == (stored[-1], True)


async def outcome(ledger: Ledger, command: Any) -> tuple[str, Any]:
    try:
        committed = await ledger.submit(command)
    except Refused as refusal:
        return "refused", type(refusal).__name__
    return "replayed" if committed.replayed else "accepted", (committed.stored.stream_id, committed.stored.seq)


@settings(max_examples=60)
@given(steps=steps)
async def test_any_sequence_of_commands_is_stored_as_the_model_says(
    ledger: Ledger, admin: asyncpg.Connection, clock: Clock, steps: list[tuple[timedelta, list[Any]]]
) -> None:
    prefix = f"{next(_examples)}_"
    model = Model()
    clock.now = strategies.NEW_YEARS_EVE
    for pause, commands in [(timedelta(0), BEGIN), *steps]:
        clock.now += pause
        group = [strategies.prefixed(command, prefix) for command in commands]
        expected = [model.judge(command, clock.now) for command in group]

        outcomes = await asyncio.gather(*[outcome(ledger, command) for command in group])

        for command, (kind, detail), (expected_kind, expected_detail) in zip(group, outcomes, expected, strict=True):
            assert expected_kind == kind, f"{command}: {detail}, expected {expected_detail}"
            assert detail in expected_detail if kind == "refused" else detail == expected_detail

    stored, folded = await stored_books(admin), await folded_books(admin)
    for account_id, account in model.accounts.items():
        state = stored.accounts[account_id]
        assert folded.accounts[account_id] == state
        assert (account["credited"], account["spent"], account["seq"]) == (state.credited, state.spent, state.seq)
        assert (model.held(account_id), model.available(account_id)) == (state.held, state.available)
    for key_id in model.keys:
        state = stored.keys[key_id]
        assert folded.keys[key_id] == state
        assert model.month_sums(key_id, state.month) == (state.month_spent, state.month_held)
    for topup_id, topup in model.topups.by_id.items():
        state = stored.topups[topup_id]
        assert folded.topups[topup_id] == state
        assert (topup["status"], topup["payment"]) == (state.status, state.payment_id)
        assert sum(topup["taken"].values()) == state.reversed
    for hold_id, hold in model.holds.items():
        assert hold["is_open"] == (hold_id in stored.holds)
        assert folded.holds.get(hold_id) == stored.holds.get(hold_id)
        assert not hold["is_open"] or (hold["left"], hold["drawn"]) == (
            stored.holds[hold_id].held,
            stored.holds[hold_id].drawn,
        )
    assert await broken_rules(admin) == []
