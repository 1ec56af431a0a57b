"""Every command submitted again, by whoever and whenever, has one effect and the first outcome."""

import asyncio
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from msgspec.structs import replace

from ledger import Ledger, Refused
from tests.conftest import Clock
from tests.integration.ledger.stored import broken_rules
from tests.unit.ledger.scenes import (
    adjust,
    create_key,
    credit,
    delete_key,
    draw,
    expire,
    expire_topup,
    fail_topup,
    grant,
    mark_pending,
    open_account,
    place,
    publish,
    reinstate,
    request_topup,
    rerate,
    reverse,
    settle,
    void,
)

#: In this order, each can be carried out once; together they are every command that can be repeated.
COMMANDS = [
    open_account(),
    grant(1_000),
    adjust(-100),
    create_key(rpm=2, budget=500),
    place("hold_1", 300, key_id="key_1", request_id="req_1"),
    replace(draw("hold_1", 100), usage={"seconds": Decimal("0.10")}),
    settle("hold_1", 250, usage={"seconds": Decimal("1.50"), "tokens": 7}),
    place("hold_2", 10, key_id="key_1"),
    void("hold_2"),
    rerate("hold_1", 300, key_id="key_1"),
    rerate("hold_1", 260, ordinal=2, key_id="key_1"),
    rerate("hold_1", 90, reference="task_1", key_id="key_1"),
    place("hold_3", 550),
    expire("hold_3"),
    place("hold_4", 10),
    expire("hold_4"),
    settle("hold_4", 30, usage={"seconds": Decimal("1.50")}),
    rerate("hold_4", 20),
    request_topup(),
    mark_pending(),
    expire_topup(),
    credit(),
    reverse(40),
    reverse(60, "dispute", "dp_1"),
    reinstate(10),
    request_topup("topup_2"),
    fail_topup("topup_2"),
    delete_key(),
    publish(),
]
WITH_OTHER_CONTENT = [
    open_account(currency="EUR"),
    grant(1_001),
    adjust(-99),
    create_key(rpm=3, budget=500),
    place("hold_1", 299, key_id="key_1", request_id="req_1"),
    draw("hold_1", 99),
    settle("hold_1", 249, usage={"seconds": Decimal("1.50"), "tokens": 7}),
    settle("hold_1", 250, usage={"seconds": Decimal("1.51"), "tokens": 7}),
    settle("hold_2", 0),
    void("hold_3"),
    settle("hold_4", 31, usage={"seconds": Decimal("1.50")}),
    rerate("hold_1", 260, key_id="key_1"),
    rerate("hold_1", 300, ordinal=2, key_id="key_1"),
    rerate("hold_1", 91, reference="task_1", key_id="key_1"),
    request_topup(amount=99),
    credit(payment_id="pi_2"),
    replace(publish(2), idempotency_key="list@1"),
]


async def test_a_command_submitted_again_at_once_later_and_by_another_process_returns_its_first_event(
    ledgers: list[Ledger], admin: asyncpg.Connection, clock: Clock
) -> None:
    first = []
    for command in COMMANDS:
        committed = await ledgers[0].submit(command)
        at_once = await ledgers[0].submit(command)
        clock.advance(seconds=1)
        elsewhere = await ledgers[1].submit(command)
        assert (committed.replayed, at_once.replayed, elsewhere.replayed) == (False, True, True)
        assert committed.stored == at_once.stored == elsewhere.stored
        first.append(committed)
    clock.advance(days=40)

    later = [await ledgers[2].submit(command) for command in COMMANDS]

    assert [committed.stored for committed in first] == [committed.stored for committed in later]
    assert len(COMMANDS) == await admin.fetchval("SELECT count(*) FROM events")
    assert await broken_rules(admin) == []


async def test_a_command_twice_in_one_group_has_one_event_and_one_answer(
    ledger: Ledger, admin: asyncpg.Connection
) -> None:
    for command in COMMANDS:
        results = await asyncio.gather(*[ledger.submit(command) for _ in range(3)])

        assert [result.replayed for result in results] == [False, True, True]
        assert len({(result.stored.stream_id, result.stored.position, result.stored.seq) for result in results}) == 1
    assert len(COMMANDS) == await admin.fetchval("SELECT count(*) FROM events")
    assert await broken_rules(admin) == []


async def test_all_commands_again_in_one_group_are_all_replays(ledger: Ledger, admin: asyncpg.Connection) -> None:
    first = await asyncio.gather(*[ledger.submit(command) for command in COMMANDS])

    again = await asyncio.gather(*[ledger.submit(command) for command in reversed(COMMANDS)])

    assert [result.stored for result in first] == [result.stored for result in reversed(again)]
    assert [True] * len(COMMANDS) == [result.replayed for result in again]
    assert len(COMMANDS) == await admin.fetchval("SELECT count(*) FROM events")


async def test_the_same_name_with_other_content_is_refused_and_writes_nothing(
    ledger: Ledger, admin: asyncpg.Connection
) -> None:
    for command in COMMANDS:
        await ledger.submit(command)

    for command in WITH_OTHER_CONTENT:
        with pytest.raises(Refused) as refusal:
            await ledger.submit(command)
        assert refusal.type.__name__ in ("IdempotencyMismatch", "HoldAlreadyEnded", "TopupMismatch"), command

    assert len(COMMANDS) == await admin.fetchval("SELECT count(*) FROM events")


async def test_a_replay_returns_the_states_as_they_are_now(ledger: Ledger) -> None:
    for command in COMMANDS[:5]:
        placed = await ledger.submit(command)

    again = await ledger.submit(COMMANDS[4])

    assert (placed.account, placed.key) == (again.account, again.key)


async def test_a_hold_id_of_another_account_is_refused(ledger: Ledger, admin: asyncpg.Connection) -> None:
    commands: list[Any] = [open_account(), open_account("acct_b"), grant(10), grant(10, account="acct_b")]
    for command in [*commands, place("hold_1", 5)]:
        await ledger.submit(command)

    foreign, own = await asyncio.gather(
        ledger.submit(place("hold_1", 5, stream_id="acct_b")),
        ledger.submit(place("hold_2", 5, stream_id="acct_b")),
        return_exceptions=True,
    )

    assert type(foreign).__name__ == "IdempotencyMismatch"
    assert not isinstance(own, BaseException)
    assert await broken_rules(admin) == []
