"""A command that Postgres or the books reject fails alone: the others of its group are carried out."""

import asyncio
import math
from decimal import Decimal
from typing import Any

import asyncpg
from msgspec.structs import replace

from ledger import Committed, Ledger, LedgerCorrupt, Refused
from tests.integration.ledger.stored import broken_rules
from tests.unit.ledger.scenes import A, B, create_key, draw, grant, open_account, place, settle, void

#: What asyncpg, msgspec or Postgres cannot take, or what must not reach them.
POISON = [
    place("nul\0", 1),
    replace(grant(1, "k"), idempotency_key="nul\0"),
    replace(grant(1, "k"), stream_id="acct\0"),
    place("hold_s", 1, model="\ud800"),
    place("hold_s", 1, request_id="\udfff"),
    replace(grant(1, "k"), reason="\ud800"),
    settle("hold_1", 1, usage={"\ud800": 1}),
    settle("hold_1", 1, usage={"x": object()}),
    settle("hold_1", 1, usage={"x": Decimal("NaN")}),
    settle("hold_1", 1, usage={"x": Decimal("-Infinity")}),
    draw("hold_1", 1, "\ud83d"),
    place("hold_w", 1, worker_id=2**63),
    place("hold_w", 1, worker_id="seven"),
    place("hold_l", 1, lifetime_s=10**12),
    create_key("key_r", rpm=2**31),
    place("hold_f", 1.5),
    place("hold_f", math.nan),
    settle("hold_1", 0.5),
]


async def in_one_group(ledger: Ledger, commands: list[Any]) -> list[Any]:
    """Submit all in one turn of the loop, so that they gather into one group."""
    return await asyncio.gather(*[ledger.submit(command) for command in commands], return_exceptions=True)


async def test_a_poisoned_command_fails_alone(ledger: Ledger, admin: asyncpg.Connection) -> None:
    for command in (open_account(), grant(10_000), place("hold_1", 10)):
        await ledger.submit(command)

    for number, poison in enumerate(POISON):
        before = await admin.fetchval("SELECT count(*) FROM events")
        commands = [place(f"before_{number}", 10), poison, void(f"before_{number}"), grant(1, f"after_{number}")]

        first, poisoned, *others = await in_one_group(ledger, commands)

        assert isinstance(poisoned, Exception), poison
        assert all(isinstance(result, Committed) and not result.replayed for result in (first, *others)), poison
        assert before + 3 == await admin.fetchval("SELECT count(*) FROM events")
    assert await broken_rules(admin) == []


async def test_several_poisoned_commands_fail_each_alone(ledger: Ledger, admin: asyncpg.Connection) -> None:
    for command in (open_account(), grant(10_000), place("hold_1", 10)):
        await ledger.submit(command)
    commands = [command for n, poison in enumerate(POISON) for command in (grant(1, f"with_{n}"), poison)]

    results = await in_one_group(ledger, commands)

    assert [True, False] * len(POISON) == [isinstance(result, Committed) for result in results]
    assert await broken_rules(admin) == []


async def test_a_refused_command_never_touches_its_group(ledger: Ledger, admin: asyncpg.Connection) -> None:
    results = await in_one_group(
        ledger, [open_account(), void("unknown"), grant(5), place("h", 6), place("i", 5), grant(-1, "x"), void("i")]
    )

    assert [isinstance(result, Committed) for result in results] == [1, 0, 1, 0, 1, 0, 1]
    assert [result.stored.position for result in results if isinstance(result, Committed)] == [1, 2, 3, 4]
    assert await broken_rules(admin) == []


async def test_an_account_whose_books_are_broken_stops_and_the_others_go_on(
    ledger: Ledger, admin: asyncpg.Connection
) -> None:
    for command in (open_account(), grant(10), place("hold_1", 8), open_account(B), grant(10, account=B)):
        await ledger.submit(command)
    await admin.execute("UPDATE account_states SET held = 3 WHERE account_id = $1", A)

    results = await in_one_group(ledger, [grant(1, "b", account=B), settle("hold_1", 1), place("b", 5, stream_id=B)])

    assert isinstance(results[1], LedgerCorrupt)
    assert [isinstance(result, Committed) for result in (results[0], results[2])] == [True, True]
    assert await admin.fetchval("SELECT count(*) FROM events") == 7


async def test_a_nul_character_in_a_usage_is_refused_because_one_such_event_would_break_every_report(
    ledger: Ledger, pool: asyncpg.Pool
) -> None:
    for command in (open_account(), grant(10), place("hold_1", 8)):
        await ledger.submit(command)

    (refusal,) = await in_one_group(ledger, [settle("hold_1", 1, usage={"voice": "a\0"})])
    cleaned = await ledger.submit(settle("hold_1", 1, usage={"voice": "\\u0000"}))

    assert isinstance(refusal, Refused)
    assert not cleaned.replayed
    assert await pool.fetchval("SELECT sum(debit_microcents) FROM trial_balance") == 10 + 8 + 8
