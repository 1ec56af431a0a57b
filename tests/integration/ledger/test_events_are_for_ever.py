"""What the database itself refuses, whatever the code believes."""

from typing import Any

import asyncpg
import pytest

from ledger import Ledger
from tests.conftest import Connect
from tests.unit.ledger.scenes import credit, grant, open_account, place, request_topup, reverse, settle

CHANGES = (
    "UPDATE events SET balance_microcents = 0",
    "UPDATE events SET payload = payload",
    "DELETE FROM events",
    "TRUNCATE events",
    "UPDATE events SET position = position WHERE false",
    "DELETE FROM events WHERE false",
    "TRUNCATE events, log_heads CASCADE",
    "MERGE INTO events USING log_heads ON true WHEN MATCHED THEN DELETE",
    "INSERT INTO events SELECT * FROM events ON CONFLICT (shard, position) DO UPDATE SET seq = 0",
)


@pytest.fixture
async def written(ledger: Ledger) -> Ledger:
    """One account, and one hold that was placed and ended."""
    for command in (open_account(), grant(100), place("hold_1", 40), settle("hold_1", 10), place("hold_2", 5)):
        await ledger.submit(command)
    return ledger


async def test_the_application_has_no_privilege_to_change_events(
    written: Ledger, pool: asyncpg.Pool, admin: asyncpg.Connection
) -> None:
    before = await admin.fetch("SELECT * FROM events ORDER BY position")

    for change in CHANGES:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied"):
            await pool.execute(change)

    assert before == await admin.fetch("SELECT * FROM events ORDER BY position")


async def test_even_the_owner_is_stopped_by_a_trigger(written: Ledger, admin: asyncpg.Connection) -> None:
    before = await admin.fetch("SELECT * FROM events ORDER BY position")

    for change in CHANGES:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="events are for ever"):
            await admin.execute(change)

    assert before == await admin.fetch("SELECT * FROM events ORDER BY position")


async def test_the_application_cannot_remove_what_protects_the_log(written: Ledger, connect: Connect) -> None:
    connection = await connect()

    for change in (
        "DROP TABLE events CASCADE",
        "ALTER TABLE events DISABLE TRIGGER ALL",
        "DROP TRIGGER events_are_append_only ON events",
        "CREATE OR REPLACE FUNCTION refuse_change_of_events() RETURNS trigger LANGUAGE sql AS 'SELECT NULL'",
        "SET session_replication_role = replica",
        "INSERT INTO log_heads (shard) VALUES (7)",
        "DELETE FROM log_heads",
        "DELETE FROM account_states",
        "DELETE FROM key_states",
        "DELETE FROM topup_states",
        "TRUNCATE open_holds",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(change)
    await connection.close()


async def insert(pool: asyncpg.Pool, **columns: Any) -> None:
    """Append a row past the code, as the application."""
    row = {"shard": 0, "position": 99, "stream_id": "acct_a", "seq": 99, "payload": "{}"} | columns
    names = ", ".join(row)
    values = ", ".join(f"${n}" for n in range(1, len(row) + 1))
    await pool.execute(f"INSERT INTO events ({names}, at) VALUES ({values}, now())", *row.values())


async def test_the_database_refuses_a_second_end_of_a_hold_of_any_kind(written: Ledger, pool: asyncpg.Pool) -> None:
    for kind in ("hold.settled", "hold.voided", "hold.expired"):
        with pytest.raises(asyncpg.UniqueViolationError, match="events_hold_placed_and_ended_once"):
            await insert(pool, type=kind, hold_id="hold_1")


async def test_the_database_refuses_a_second_late_settlement_of_a_hold(written: Ledger, pool: asyncpg.Pool) -> None:
    await insert(pool, type="hold.settled_late", hold_id="hold_1")

    with pytest.raises(asyncpg.UniqueViolationError, match="events_hold_settled_late_once"):
        await insert(pool, type="hold.settled_late", hold_id="hold_1", stream_id="acct_b", position=100)


async def test_the_database_refuses_a_second_placing_of_a_hold_even_by_another_account(
    written: Ledger, pool: asyncpg.Pool
) -> None:
    for account in ("acct_a", "acct_b"):
        with pytest.raises(asyncpg.UniqueViolationError, match="events_hold_placed_and_ended_once"):
            await insert(pool, type="hold.placed", hold_id="hold_2", stream_id=account)


async def test_the_database_refuses_a_second_credit_of_a_topup_or_of_a_payment(pool: asyncpg.Pool) -> None:
    credited = '{"topup_id":"%s","provider":"stripe","payment_id":"%s"}'
    await insert(pool, type="topup.credited", payload=credited % ("topup_1", "pi_1"))

    for topup_id, payment_id, constraint in (
        ("topup_1", "pi_2", "events_topup_requested_and_credited_once"),
        ("topup_2", "pi_1", "events_payment_credited_once"),
    ):
        payload = credited % (topup_id, payment_id)
        with pytest.raises(asyncpg.UniqueViolationError, match=constraint):
            await insert(pool, type="topup.credited", stream_id="acct_b", position=100, payload=payload)


async def test_the_database_refuses_to_assign_an_index_or_an_address_twice(pool: asyncpg.Pool) -> None:
    assigned = '{"index":%s,"address":"%s","key_fingerprint":"00000000"}'
    await insert(pool, type="deposit_address.assigned", payload=assigned % (7, "0xa"))

    for index, address, constraint in (
        (7, "0xb", "events_deposit_index_assigned_once"),
        (8, "0xa", "events_deposit_address_assigned_once"),
    ):
        payload = assigned % (index, address)
        with pytest.raises(asyncpg.UniqueViolationError, match=constraint):
            await insert(pool, type="deposit_address.assigned", stream_id="acct_b", position=100, payload=payload)


async def test_the_database_takes_any_number_of_other_events_of_a_topup(pool: asyncpg.Pool) -> None:
    for n, kind in enumerate(["topup.pending", "topup.reversed", "topup.reversed", "topup.pending"]):
        await insert(pool, type=kind, payload='{"topup_id":"topup_1"}', seq=100 + n, position=100 + n)


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ("status = 'reversed', payment_id = NULL, credited_at = NULL, refunded = 0", "topup_states_status"),
        ("amount = 0", "topup_states_amount_positive"),
        ("payment_id = NULL", "topup_states_credited_by_a_payment"),
        ("status = 'failed', refunded = 0", "topup_states_credited_by_a_payment"),
        ("disputed = 61", "topup_states_taken_back_of_what_was_credited"),
        ("refunded = -1", "topup_states_taken_back_of_what_was_credited"),
    ],
)
async def test_the_database_refuses_a_topup_that_contradicts_itself(
    ledger: Ledger, pool: asyncpg.Pool, change: str, constraint: str
) -> None:
    for command in (open_account(), request_topup(), credit(), reverse(40)):
        await ledger.submit(command)

    with pytest.raises(asyncpg.CheckViolationError, match=constraint):
        await pool.execute(f"UPDATE topup_states SET {change}")


async def test_the_database_takes_any_number_of_draws_and_extensions_of_a_hold(
    written: Ledger, pool: asyncpg.Pool
) -> None:
    for n, kind in enumerate(["hold.drawn", "hold.drawn", "hold.extended", "hold.extended"]):
        await insert(pool, type=kind, hold_id="hold_2", seq=100 + n, position=100 + n)


async def test_the_database_refuses_a_place_in_the_log_or_an_idempotency_key_that_is_taken(
    written: Ledger, pool: asyncpg.Pool
) -> None:
    for column, value, constraint in (
        ("position", 1, "events_pkey"),
        ("seq", 1, "events_stream_seq_key"),
        ("idempotency_key", "open", "events_idempotency_key"),
    ):
        with pytest.raises(asyncpg.UniqueViolationError, match=constraint):
            await insert(pool, type="credit.granted", **{column: value})


async def test_the_database_refuses_to_hold_less_than_nothing(written: Ledger, pool: asyncpg.Pool) -> None:
    for change, constraint in (
        ("UPDATE account_states SET held = -1", "account_states_held_not_negative"),
        ("UPDATE open_holds SET held = -1", "open_holds_held_not_negative"),
    ):
        with pytest.raises(asyncpg.CheckViolationError, match=constraint):
            await pool.execute(change)


async def test_a_payload_is_stored_as_the_exact_text_that_was_written(
    written: Ledger, pool: asyncpg.Pool, admin: asyncpg.Connection
) -> None:
    odd = '{"type":"credit.granted" ,  "b":1,"a":1.50,"b":2, "ü":"\\u00fc"}'

    await insert(pool, type="credit.granted", payload=odd)

    assert odd == await admin.fetchval("SELECT payload::text FROM events WHERE position = 99")
