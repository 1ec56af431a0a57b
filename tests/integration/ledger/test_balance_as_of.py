"""The balance as of any moment, looked up, equals the events up to that moment, added up."""

import asyncio
import itertools
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import Ledger, Refused, StoredEvent
from ledger.events import (
    BalanceAdjusted,
    CreditGranted,
    HoldDrawn,
    HoldExtended,
    HoldPlaced,
    HoldSettled,
    HoldSettledLate,
    TopupCredited,
    TopupReinstated,
    TopupReversed,
)
from ledger.group import EndEvent
from tests import strategies
from tests.conftest import Clock
from tests.unit.ledger.scenes import create_key, grant, open_account, place, settle

_examples = itertools.count()
MICROSECOND = timedelta(microseconds=1)


def added_up(events: list[StoredEvent], at: datetime) -> tuple[int, int]:
    """(posted, held) after everything that happened up to and including the moment."""
    posted = held = 0
    for stored in events:
        event: Any = stored.event
        if stored.at > at:
            continue
        match event:
            case CreditGranted() | TopupCredited() | TopupReinstated():
                posted += event.amount_microcents
            case TopupReversed():
                posted -= event.amount_microcents
            case BalanceAdjusted():
                posted += event.credited_microcents - event.debited_microcents
            case HoldPlaced() | HoldExtended():
                held += event.amount_microcents
            case HoldDrawn():
                held -= event.amount_microcents
                posted -= event.amount_microcents
        if isinstance(event, EndEvent):
            held -= event.held_microcents
        if isinstance(event, HoldSettled | HoldSettledLate):
            posted -= event.amount_microcents
    return posted, held


@settings(max_examples=30)
@given(
    steps=st.lists(
        st.tuples(
            strategies.clock_steps,
            st.lists(strategies.account_commands | strategies.topup_commands, min_size=1, max_size=4),
        ),
        max_size=12,
    )
)
async def test_at_every_moment_it_is_what_the_events_up_to_then_add_up_to(
    ledger: Ledger, clock: Clock, steps: list[tuple[timedelta, list[Any]]]
) -> None:
    prefix = f"{next(_examples)}_"
    begin = [open_account(), grant(200), create_key(), place("hold_1", 30), place("hold_2", 20)]
    for pause, commands in [(timedelta(0), begin), *steps]:
        clock.now += pause
        submissions = [ledger.submit(strategies.prefixed(command, prefix)) for command in commands]
        results = await asyncio.gather(*submissions, return_exceptions=True)
        assert all(not isinstance(result, BaseException) or isinstance(result, Refused) for result in results)

    for account_id in strategies.ACCOUNTS:
        events = await ledger.stream(prefix + account_id)
        moments = {stored.at + step * MICROSECOND for stored in events for step in (-1, 0, 1)}
        for moment in sorted(moments):
            balance = await ledger.balance_as_of(prefix + account_id, moment)
            posted, held = added_up(events, moment)
            assert (posted, held, posted - held) == (balance.posted, balance.held, balance.available)


@pytest.mark.money_bug(23)
async def test_the_present_balance_is_the_one_that_decisions_are_made_on(ledger: Ledger, clock: Clock) -> None:
    for command in (open_account(), grant(100), place("hold_1", 60), create_key(), settle("hold_1", 75)):
        clock.advance(seconds=1)
        committed = await ledger.submit(command)

        balance = await ledger.balance_as_of("acct_a", clock.now)

        state = committed.account
        assert (state.posted, state.held, state.available) == (balance.posted, balance.held, balance.available)


async def test_before_its_first_event_and_without_any_an_account_has_nothing(ledger: Ledger, clock: Clock) -> None:
    await ledger.submit(open_account())
    await ledger.submit(grant(100))

    before = await ledger.balance_as_of("acct_a", clock.now - MICROSECOND)
    never = await ledger.balance_as_of("acct_b", clock.now)

    assert (before.posted, before.held, never.posted, never.held) == (0, 0, 0, 0)
