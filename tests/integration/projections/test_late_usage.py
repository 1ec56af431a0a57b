"""A hold that was settled after it had expired counts as a request: once, on the day of its charge."""

from typing import Any

import asyncpg
import pytest

from ledger import Ledger
from projections import ProjectionRunner, check_books, rebuild
from tests.conftest import Clock
from tests.integration.ledger.stored import broken_rules
from tests.unit.ledger.scenes import create_key, expire, grant, open_account, place, rerate, settle
from tollgate.migrate import load_migrations

BEFORE = [open_account(), grant(1_000), create_key(), place("hold_1", 300, key_id="key_1"), expire("hold_1")]
LATE = settle("hold_1", 50, usage={"input_tokens": 7}, key_id="key_1", backend="gpu-1")
CORRECTION = rerate("hold_1", 40, key_id="key_1")

SHOWN = {
    "lines": [
        ("expired", "time_limit", None, 0, 0, "21 Nov 12:00", "21 Nov 12:00"),
        ("settled_late", "completed", "gpu-1", 7, 40, "21 Nov 12:00", "22 Nov 12:00"),
    ],
    "days": [("2026-11-22", "key_1", 1, 7, 40)],
}


async def shown(db: asyncpg.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """The lines, and the days with something on them."""
    lines = await db.fetch(
        "SELECT status, outcome, backend, input_tokens, cost_microcents, to_char(started_at, 'DD Mon HH24:MI'),"
        " to_char(ended_at, 'DD Mon HH24:MI') FROM usage_logs ORDER BY position"
    )
    days = await db.fetch("SELECT day::text, key_id, requests, input_tokens, cost_microcents FROM usage_daily")
    return {"lines": [tuple(row) for row in lines], "days": [tuple(row) for row in days]}


@pytest.fixture
async def settled_late(ledger: Ledger, clock: Clock) -> Ledger:
    """A hold that expired on one day, was settled on the next, and corrected on the third."""
    for command in BEFORE:
        await ledger.submit(command)
    for command in (LATE, CORRECTION):
        clock.advance(days=1)
        await ledger.submit(command)
    return ledger


async def test_it_has_a_line_of_its_own_and_counts_as_one_request(
    settled_late: Ledger, admin: asyncpg.Connection
) -> None:
    await ProjectionRunner(settled_late.pool).catch_up()

    assert await shown(admin) == SHOWN
    assert [str(finding) async for finding in check_books(admin)] == []
    assert await broken_rules(admin) == []


async def test_a_rebuild_gives_the_same_rows_and_states_again(settled_late: Ledger, admin: asyncpg.Connection) -> None:
    before = await settled_late.keys("acct_a")

    await rebuild(admin, [migration.sql for migration in load_migrations()], lambda done, total: None)

    assert await shown(admin) == SHOWN
    assert before == await settled_late.keys("acct_a")
    assert before[0].month_spent == 40
    assert [str(finding) async for finding in check_books(admin)] == []


@pytest.mark.parametrize(
    "forgery",
    [
        '\'"model":"m"\', \'"model":"n"\'',
        '\'"key_id":"key_1"\', \'"key_id":"key_2"\'',
        "'\"version\":1', '\"version\":2'",
        "'12:00:00Z', '12:00:01Z'",
    ],
)
async def test_a_check_names_a_late_settlement_that_does_not_follow_from_its_hold(
    settled_late: Ledger, admin: asyncpg.Connection, forgery: str
) -> None:
    await admin.execute("SET session_replication_role = replica")
    await admin.execute(f"UPDATE events SET payload = replace(payload::text, {forgery})::json WHERE position = 6")

    found = [str(finding) async for finding in check_books(admin)]

    assert "position 6: does not follow from the expired hold that it charges" in found


async def test_a_check_names_a_debt_that_there_was_no_reason_for(
    settled_late: Ledger, admin: asyncpg.Connection
) -> None:
    await admin.execute("SET session_replication_role = replica")
    await admin.execute(
        "UPDATE events SET payload = replace(payload::text, '\"debt_microcents\":0', '\"debt_microcents\":1')::json"
        " WHERE position = 6"
    )

    found = [str(finding) async for finding in check_books(admin)]

    assert found == ["position 6: hold hold_1: its debt says 1, the balance before it gives 0"]


async def test_a_check_names_a_late_settlement_of_a_hold_that_did_not_expire(
    settled_late: Ledger, admin: asyncpg.Connection
) -> None:
    await admin.execute("SET session_replication_role = replica")
    await admin.execute(
        "UPDATE events SET type = 'hold.voided',"
        " payload = replace(payload::text, 'hold.expired', 'hold.voided')::json WHERE position = 5"
    )

    found = [str(finding) async for finding in check_books(admin)]

    assert "position 6: does not follow from the expired hold that it charges" in found
