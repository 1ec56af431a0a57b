"""The events are the books: nobody can change them, and everything else can be lost and made again from them."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from tests.acceptance.conftest import breakable_demo
from tests.acceptance.customers import Customer, new_customer
from tests.acceptance.running_demo import RunningDemo, until

USAGE_TABLES = ("usage_logs", "usage_daily", "projection_checkpoints")
STATE_TABLES = ("account_states", "key_states", "open_holds")
DERIVED_TABLES = (*STATE_TABLES, *USAGE_TABLES)

#: One change to each derived table, and to each kind of number in them. The account is $1.
TAMPERING = {
    "spent": "UPDATE account_states SET spent = spent + 1 WHERE account_id = $1",
    "monthly_budget": "UPDATE key_states SET monthly_budget = monthly_budget + 1 WHERE account_id = $1",
    "open hold hold_of_nobody": "INSERT INTO open_holds (shard, hold_id, account_id, held, drawn, operation, model,"
    " program, program_version, program_digest, worker_id, budget_month, placed_at, expires_at) VALUES"
    " (0, 'hold_of_nobody', $1, 5, 0, 'o', 'm', 'p', 1, 'd', 1, '2026-11', now(), now() + interval '1 hour')",
    "usage line": "UPDATE usage_logs SET cost_microcents = cost_microcents - 1 WHERE account_id = $1",
    "usage of": "UPDATE usage_daily SET requests = requests + 1 WHERE account_id = $1",
}


@pytest_asyncio.fixture(scope="module")
async def demo() -> AsyncIterator[RunningDemo]:
    async for demo in breakable_demo():
        yield demo


@pytest_asyncio.fixture(scope="module")
async def customer(demo: RunningDemo) -> Customer:
    """Somebody with requests of all kinds: plain, streamed, by two keys and a session, of two models, and refused."""
    customer = await new_customer(demo, cents=1000, monthly_budget_cents=500, rate_limit_rpm=10_000)
    other = await customer.new_key()
    await customer.chat(max_tokens=3)
    await customer.chat(stream=True, max_tokens=3)
    await customer.chat(secret=other.secret, model="deepseek-v3", max_tokens=3)
    await customer.chat(secret=customer.session, max_tokens=3)
    await customer.chat(simulate={"status": 400})
    deleted = await customer.new_key()
    await demo.http.call("DELETE", f"/v1/keys/{deleted.id}", headers=customer.bearer(customer.session))
    await customer.usage_logs(5)
    return customer


async def rows_of(demo: RunningDemo) -> dict[str, list[str]]:
    """Every row of every derived table, as text, once the projections have caught up with the log."""

    async def caught_up() -> bool:
        behind = "SELECT FROM log_heads h LEFT JOIN projection_checkpoints c USING (shard, position) WHERE c IS NULL"
        return not await demo.fetch(behind)

    await until(caught_up)
    rows = {}
    for table in DERIVED_TABLES:
        found = await demo.fetch(f"SELECT r::text FROM {table} r ORDER BY 1")
        rows[table] = [row[0] for row in found]
    return rows


async def layout_of(demo: RunningDemo) -> list[Any]:
    """What a table is beside its rows: columns, indexes, constraints and who may do what."""
    queries = (
        "SELECT table_name, column_name, data_type, is_nullable, column_default FROM information_schema.columns"
        " WHERE table_schema = 'public' ORDER BY 1, ordinal_position",
        "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1, 2",
        "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2",
        "SELECT table_name, privilege_type FROM information_schema.role_table_grants"
        " WHERE table_schema = 'public' AND grantee = 'tollgate_app' ORDER BY 1, 2",
    )
    return [[tuple(row) for row in await demo.fetch(query)] for query in queries]


# --- projections


@pytest.mark.parametrize(
    "damage", ["DROP TABLE {}", "TRUNCATE {}", "DELETE FROM {} WHERE ctid IN (SELECT ctid FROM {} LIMIT 1)"]
)
async def test_whatever_happened_to_the_projections_a_rebuild_gives_the_same_rows(
    customer: Customer, damage: str
) -> None:
    demo = customer.demo
    async with customer.stream(simulate={"tokens": 1000, "token_latency_ms": 200}):  # so that there is an open hold
        rows, layout = await rows_of(demo), await layout_of(demo)
        assert all(rows[table] for table in DERIVED_TABLES)
        async with demo.sql() as connection:
            for table in DERIVED_TABLES:
                await connection.execute(damage.format(table, table))

        found = await demo.command("check")
        rebuilt = await demo.command("rebuild")

        assert found.status == 1
        if damage.startswith("DROP"):
            assert all(f"table {table}: " in found.out for table in DERIVED_TABLES)
        assert rebuilt.status == 0, rebuilt
        assert await rows_of(demo) == rows
        assert await layout_of(demo) == layout
        await demo.assert_books_in_order()
    await customer.when_no_hold_is_open()


async def test_a_check_names_what_was_changed_in_each_table(customer: Customer) -> None:
    demo = customer.demo
    rows = await rows_of(demo)
    async with demo.sql() as connection:
        for change in TAMPERING.values():
            assert not (await connection.execute(change, customer.account_id)).endswith(" 0")

    found = await demo.command("check")
    rebuilt = await demo.command("rebuild")

    assert found.status == 1
    for subject in TAMPERING:
        assert subject in found.out
    assert customer.account_id in found.out
    assert f"{len(found.out.splitlines()) - 1} findings" in found.out
    assert rebuilt.status == 0
    assert await rows_of(demo) == rows


@pytest.mark.parametrize(
    ("change", "undo", "named"),
    [
        (
            "UPDATE projection_checkpoints SET position = position + 5",
            "UPDATE projection_checkpoints SET position = position - 5",
            "the log at",
        ),
        (
            "UPDATE log_heads SET position = position - 1",
            "UPDATE log_heads SET position = position + 1",
            "the log's head says",
        ),
        (
            "UPDATE posting_rules SET ledger_account = 'revenue' WHERE event_type = 'hold.voided' AND side = 'credit'",
            "UPDATE posting_rules SET ledger_account = 'customer_available' WHERE event_type = 'hold.voided'"
            " AND side = 'credit'",
            "postings give available",
        ),
        (
            "UPDATE posting_rules SET amount_field = 'amount_microcents' WHERE event_type = 'hold.settled'"
            " AND ledger_account = 'customer_held'",
            "UPDATE posting_rules SET amount_field = 'held_microcents' WHERE event_type = 'hold.settled'"
            " AND ledger_account = 'customer_held'",
            "its postings do not balance",
        ),
    ],
)
async def test_a_check_names_what_does_not_fit_the_log(demo: RunningDemo, change: str, undo: str, named: str) -> None:
    async with demo.sql() as connection:
        await connection.execute(change)

    found = await demo.command("check")

    async with demo.sql() as connection:
        await connection.execute(undo)
    assert found.status == 1
    assert named in found.out


async def test_a_rebuild_under_load_disturbs_nobody_and_loses_nothing(demo: RunningDemo) -> None:
    customer = await new_customer(demo, cents=1000)
    stopping = asyncio.Event()
    answers = []

    async def ask(*, stream: bool) -> None:
        while not stopping.is_set():
            answers.append(await customer.chat(stream=stream, max_tokens=3, simulate={"token_latency_ms": 1}))

    async def read() -> None:
        while not stopping.is_set():
            answers.append(await customer.get("/v1/users/me"))

    asking = [asyncio.create_task(ask(stream=bool(n % 2))) for n in range(4)]
    reading = asyncio.create_task(read())
    async with demo.sql() as connection:
        await connection.execute("DROP TABLE usage_daily, usage_logs, projection_checkpoints")
    commands = [await demo.command(command) for command in ("rebuild", "check")]
    stopping.set()
    await asyncio.gather(*asking, reading)

    assert [command.status for command in commands] == [0, 0], commands
    assert {answer.status for answer in answers} == {200}
    await customer.when_no_hold_is_open()
    served = {hold_id for answer in answers if (hold_id := answer.headers.get("x-tollgate-hold-id"))}
    settled = {event["hold_id"] for event in await customer.events() if event["type"] == "hold.settled"}
    assert served == settled
    await demo.assert_books_in_order()


async def test_two_rebuilds_at_once_take_turns(customer: Customer) -> None:
    rows = await rows_of(customer.demo)

    commands = await asyncio.gather(*(customer.demo.command("rebuild") for _ in range(2)))

    assert [command.status for command in commands] == [0, 0], commands
    assert await rows_of(customer.demo) == rows


# --- events


@pytest.mark.parametrize("role", ["postgres", "tollgate_app"])
@pytest.mark.parametrize(
    "change",
    [
        "UPDATE events SET balance_microcents = 0",
        "UPDATE events SET balance_microcents = 0 WHERE false",
        "DELETE FROM events",
        "TRUNCATE events",
        "TRUNCATE events, log_heads CASCADE",
        "INSERT INTO events SELECT * FROM events LIMIT 1 ON CONFLICT (shard, position) DO UPDATE SET at = now()",
        "MERGE INTO events e USING (SELECT 1) one ON e.position = 1 WHEN MATCHED THEN DELETE",
    ],
)
async def test_events_are_changed_by_nobody(customer: Customer, role: str, change: str) -> None:
    async with customer.demo.sql() as connection:
        await connection.execute(f"SET ROLE {role}")
        before = await connection.fetchval("SELECT md5(string_agg(e::text, '' ORDER BY position)) FROM events e")

        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(change)

        after = await connection.fetchval("SELECT md5(string_agg(e::text, '' ORDER BY position)) FROM events e")
    assert before == after


@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE events",
        "ALTER TABLE events DISABLE TRIGGER ALL",
        "SET session_replication_role = replica",
        "DELETE FROM account_states",
        "DELETE FROM usage_logs",
        "UPDATE usage_logs SET input_tokens = 0",
        "INSERT INTO posting_rules VALUES ('credit.granted', 'revenue', 'credit', 'amount_microcents')",
    ],
)
async def test_the_serving_role_cannot_get_around_the_books(customer: Customer, change: str) -> None:
    async with customer.demo.sql() as connection:
        await connection.execute("SET ROLE tollgate_app")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(change)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            "UPDATE events SET payload = replace(payload::text, ':1000000000', ':2000000000')::json"
            " WHERE type = 'credit.granted'",
            "the balance after it says",
        ),
        ("UPDATE events SET held_microcents = held_microcents + 1 WHERE type = 'hold.placed'", "the held after it"),
        ("UPDATE events SET type = 'hold.voided' WHERE type = 'hold.settled'", "the column type says"),
        ("DELETE FROM events WHERE position = (SELECT max(position) FROM events)", "the log's head says"),
        ("DELETE FROM events WHERE position = 7", "position 7 is missing"),
    ],
)
async def test_an_owner_who_gets_around_the_trigger_is_found_out(customer: Customer, change: str, named: str) -> None:
    demo = customer.demo
    async with demo.sql() as connection:
        await connection.execute("CREATE TABLE kept AS SELECT * FROM events")
        await connection.execute("SET session_replication_role = replica")
        assert not (await connection.execute(change)).endswith(" 0")

    found = await demo.command("check")

    async with demo.sql() as connection, connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute("DELETE FROM events")
        await connection.execute("INSERT INTO events SELECT * FROM kept")
        await connection.execute("DROP TABLE kept")
    assert found.status == 1
    assert named in found.out


# --- at last: the tables that decisions are made on, lost while a stream runs


async def test_a_stream_that_cannot_be_settled_ends_in_an_error_and_is_charged_later_if_at_all(
    customer: Customer,
) -> None:
    demo = customer.demo
    async with customer.stream(simulate={"tokens": 40, "token_latency_ms": 20}) as stream:
        await stream.content.readline()
        async with demo.sql() as connection:
            await connection.execute("DROP TABLE account_states, key_states, open_holds")
        rest = await stream.content.read()
    refused = await customer.chat()
    rebuilt = await demo.command("rebuild")

    last = rest.rstrip().rpartition(b"\n\n")[2]
    assert b'"code":"internal_error"' in last
    assert b"[DONE]" not in rest
    assert b"HTTP/1.1" not in rest
    assert (refused.status, refused.error["code"]) == (500, "internal_error")
    assert rebuilt.status == 0
    assert (await customer.chat()).status == 200
    await demo.assert_books_in_order()
