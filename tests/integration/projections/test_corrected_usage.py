"""A corrected charge shows on the line and the day of its request: at once, later, and after a rebuild."""

import itertools
from contextlib import suppress
from typing import Any

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ledger import DrawHold, Ledger, Refused
from projections import ProjectionRunner, check_books, rebuild
from tests import strategies
from tests.conftest import Clock
from tests.unit.ledger.scenes import create_key, draw, expire, grant, open_account, place, rerate, settle
from tollgate.migrate import load_migrations

RIGHT = {"program": "list", "version": 2, "digest": "cd" * 32}
BEFORE = [
    open_account(),
    grant(1_000),
    create_key(),
    place("hold_1", 300, key_id="key_1"),
    draw("hold_1", 100, "task_1"),
    settle("hold_1", 50, usage={"input_tokens": 7}),
]
CORRECTIONS = [
    rerate("hold_1", 80, key_id="key_1"),
    rerate("hold_1", 40, reference="task_1", key_id="key_1"),
    rerate("hold_1", 70, ordinal=2, key_id="key_1"),
]

#: Charges, and corrections of them, of two holds that may expire.
BEGIN = [open_account(), grant(1_000), place("hold_1", 300), place("hold_2", 300)]
hold_ids = st.sampled_from(("hold_1", "hold_2"))
chargings = st.builds(
    replace,
    st.one_of(strategies.draws, strategies.settlements, strategies.reratings, strategies.reratings),
    stream_id=st.just("acct_a"),
    hold_id=hold_ids,
    amount_microcents=strategies.small_amounts,
).map(lambda command: command if isinstance(command, DrawHold) else replace(command, key_id=None))
happenings = st.one_of(chargings, chargings, chargings, hold_ids.map(expire))

_examples = itertools.count()


def under_the_right_price(command: Any) -> Any:
    return replace(command, price=replace(command.price, version=2))


async def submit(ledger: Ledger, commands: list[Any]) -> None:
    for command in commands:
        await ledger.submit(command)


async def shown(db: asyncpg.Connection) -> dict[str, list[tuple[Any, ...]]]:
    """The lines, and the days with something on them."""
    lines = await db.fetch("SELECT status, cost_microcents, program_version FROM usage_logs ORDER BY position")
    days = await db.fetch("SELECT day::text, requests, input_tokens, cost_microcents FROM usage_daily ORDER BY day")
    return {"lines": [tuple(row) for row in lines], "days": [tuple(row) for row in days]}


CORRECTED = {"lines": [("drawn", 40, 2), ("settled", 70, 2)], "days": [("2026-11-21", 2, 7, 110)]}


@pytest.mark.parametrize("shown_after", [(0,), (6,), (7,), (6, 7, 8), (8, 9)])
async def test_the_line_and_the_day_of_the_request_are_corrected_whenever_the_projection_looks(
    ledger: Ledger, admin: asyncpg.Connection, clock: Clock, shown_after: tuple[int, ...]
) -> None:
    runner = ProjectionRunner(ledger.pool)
    commands = [*BEFORE, *map(under_the_right_price, CORRECTIONS)]
    for number, command in enumerate(commands, start=1):
        if number > len(BEFORE):
            clock.advance(days=1)
        await ledger.submit(command)
        if number in shown_after:
            await runner.catch_up()

    await runner.catch_up()

    assert await shown(admin) == CORRECTED
    assert [str(finding) async for finding in check_books(admin)] == []


async def test_a_rebuild_gives_the_corrected_rows_again(
    ledger: Ledger, admin: asyncpg.Connection, clock: Clock
) -> None:
    await submit(ledger, BEFORE)
    await ProjectionRunner(ledger.pool).catch_up()
    clock.advance(days=40)
    await submit(ledger, [under_the_right_price(command) for command in CORRECTIONS])
    await ProjectionRunner(ledger.pool).catch_up()

    await rebuild(admin, [migration.sql for migration in load_migrations()], lambda done, total: None)

    assert await shown(admin) == CORRECTED
    assert [str(finding) async for finding in check_books(admin)] == []


@settings(max_examples=25)
@given(steps=st.lists(st.tuples(st.booleans(), st.lists(happenings, min_size=1, max_size=4)), min_size=2, max_size=8))
async def test_whatever_is_charged_and_corrected_the_rows_are_those_of_the_log(
    ledger: Ledger, admin: asyncpg.Connection, steps: list[tuple[bool, list[Any]]]
) -> None:
    prefix = f"{next(_examples)}_"
    runner = ProjectionRunner(ledger.pool)
    for looks, commands in [(True, BEGIN), *steps]:
        for command in commands:
            with suppress(Refused):
                await ledger.submit(strategies.prefixed(command, prefix))
        if looks:
            await runner.catch_up()

    await runner.catch_up()

    assert [str(finding) async for finding in check_books(admin)] == []


@pytest.mark.parametrize(
    ("forgery", "named"),
    [
        ("'\"before_microcents\":80', '\"before_microcents\":81'", "before + charged - refunded is not after"),
        ("'\"ordinal\":2', '\"ordinal\":3'", "does not continue the charge that it corrects"),
        ("'\"model\":\"m\"', '\"model\":\"n\"'", "does not continue the charge that it corrects"),
        (
            "'\"before_microcents\":80,\"after_microcents\":70', '\"before_microcents\":79,\"after_microcents\":69'",
            "does not continue the charge that it corrects",
        ),
        ("'\"charged_microcents\":0,\"refunded_microcents\":10', '\"charged_microcents\":5,\"refunded_microcents\":15'",
         "charges and refunds at once"),
    ],
)  # fmt: skip
async def test_a_check_names_a_correction_that_does_not_follow(
    ledger: Ledger, admin: asyncpg.Connection, forgery: str, named: str
) -> None:
    await submit(ledger, [*BEFORE, *CORRECTIONS])
    await admin.execute("SET session_replication_role = replica")
    changed = await admin.execute(
        f"UPDATE events SET payload = replace(payload::text, {forgery})::json WHERE position = 9"
    )

    found = [str(finding) async for finding in check_books(admin)]

    assert changed == "UPDATE 1"
    assert any(named in finding for finding in found), found
