"""Top-ups follow from the events: a rebuild gives the same rows again, and a check names what does not follow."""

from typing import Any

import asyncpg
import pytest

from ledger import Ledger
from projections import check_books, rebuild
from tests.conftest import Clock
from tests.integration.ledger.stored import broken_rules
from tests.unit.ledger.scenes import (
    credit,
    expire_topup,
    fail_topup,
    mark_pending,
    open_account,
    place,
    reinstate,
    request_topup,
    reverse,
    settle,
)
from tollgate.migrate import load_migrations

#: One event each, so that a command has the position of its place here.
HISTORY: list[Any] = [
    open_account(),
    request_topup(),
    mark_pending(),
    expire_topup(),
    credit(),
    reverse(40),
    reverse(60, "dispute", "dp_1"),
    reinstate(10),
    *(request_topup("topup_2"), mark_pending("topup_2", "cs_2"), fail_topup("topup_2")),
    *(request_topup("topup_3", 500), credit("topup_3", "pi_3")),
    *(place("hold_1", 500), settle("hold_1", 500), reverse(500, "reorganisation", topup_id="topup_3")),
]


@pytest.fixture
async def topped_up(ledger: Ledger, clock: Clock) -> Ledger:
    for command in HISTORY:
        clock.advance(seconds=1)
        await ledger.submit(command)
    return ledger


async def found(db: asyncpg.Connection) -> list[str]:
    return [str(finding) async for finding in check_books(db)]


async def test_the_books_are_sound_after_a_spent_topup_was_taken_back(
    topped_up: Ledger, admin: asyncpg.Connection
) -> None:
    account = await topped_up.account("acct_a")

    assert account is not None
    assert (account.credited, account.spent, account.debt) == (50, 500, 450)
    assert await found(admin) == []
    assert await broken_rules(admin) == []


@pytest.mark.parametrize("loss", ["DROP TABLE topup_states", "DELETE FROM topup_states", "SELECT"])
async def test_a_rebuild_gives_the_same_topups_again_whatever_became_of_them(
    topped_up: Ledger, admin: asyncpg.Connection, loss: str
) -> None:
    before = await topped_up.topups("acct_a")
    await admin.execute(loss)

    await rebuild(admin, [migration.sql for migration in load_migrations()], lambda done, total: None)

    assert before == await topped_up.topups("acct_a")
    assert [int(topup.topup_id[-1]) for topup in before] == [3, 2, 1]
    assert await found(admin) == []


async def test_after_a_rebuild_topups_go_on_where_they_were(topped_up: Ledger, admin: asyncpg.Connection) -> None:
    await rebuild(admin, [migration.sql for migration in load_migrations()], lambda done, total: None)

    again = await topped_up.submit(credit())
    more = await topped_up.submit(reverse(50))

    assert (again.replayed, again.stored.position) == (True, 5)
    assert (more.replayed, more.account.debt) == (False, 460)
    assert await broken_rules(admin) == []


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("UPDATE topup_states SET refunded = 39 WHERE topup_id = 'topup_1'", "top-up topup_1: refunded says 39"),
        ("UPDATE topup_states SET asked_amount = 9 WHERE topup_id = 'topup_1'", "top-up topup_1: asked_amount says 9"),
        (
            "UPDATE topup_states SET status = 'expired' WHERE topup_id = 'topup_2'",
            "top-up topup_2: status says expired",
        ),
        ("DELETE FROM topup_states WHERE topup_id = 'topup_2'", "top-up topup_2: follows from the events"),
        ("DROP TABLE topup_states", "table topup_states: is not there"),
        ("DROP INDEX events_payment_credited_once", "events_payment_credited_once: is missing"),
        ("DROP INDEX events_deposit_index_assigned_once", "events_deposit_index_assigned_once: is missing"),
        ("DROP INDEX events_deposit_address_assigned_once", "events_deposit_address_assigned_once: is missing"),
        ("DROP INDEX events_topup_requested_and_credited_once", "events_topup_requested_and_credited_once: is missing"),
        (
            "DELETE FROM posting_rules WHERE ledger_account = 'processor_clearing'",
            "position 5: its postings do not bal",
        ),
    ],
)
async def test_a_check_names_what_was_changed(
    topped_up: Ledger, admin: asyncpg.Connection, change: str, named: str
) -> None:
    await admin.execute(change)

    findings = await found(admin)

    assert any(finding.startswith(named) for finding in findings), findings


@pytest.mark.parametrize(
    ("position", "said", "forgery", "named"),
    [
        (5, '"amount_microcents":100', '"amount_microcents":101', "is credited otherwise than it was requested"),
        (5, '"amount":10.00', '"amount":9.00', "is credited otherwise than it was requested"),
        (5, '"topup_1"', '"topup_4"', "top-up topup_4 was not requested"),
        (7, '"amount_microcents":60', '"amount_microcents":59', "does not continue what was taken back before"),
        (8, '"dispute"', '"refund"', "does not continue what was taken back before"),
        (13, '"pi_3"', '"pi_1"', "credits a payment that was credited before"),
    ],
)
async def test_a_check_names_an_event_that_cannot_be_true(
    topped_up: Ledger, admin: asyncpg.Connection, position: int, said: str, forgery: str, named: str
) -> None:
    await admin.execute("SET session_replication_role = replica")
    await admin.execute("DROP INDEX events_payment_credited_once")
    await admin.execute(
        "UPDATE events SET payload = replace(payload::text, $2, $3)::json WHERE position = $1", position, said, forgery
    )

    findings = await found(admin)

    assert any(finding.startswith(f"position {position}: ") and named in finding for finding in findings), findings
