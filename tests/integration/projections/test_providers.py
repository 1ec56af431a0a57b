"""What providers do with our money: the trial balance is zero in every currency, and a check names what cannot be."""

from contextlib import suppress
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger import Ledger, Refused
from projections import check_books, rebuild
from tests import strategies
from tests.integration.ledger.stored import broken_rules
from tests.strategies import prefixed
from tests.unit.ledger.provider_scenes import STRIPE, fail_payout, fee, pay_out, payout, resolve
from tests.unit.ledger.scenes import credit, open_account, place, reinstate, request_topup, reverse, settle
from tollgate.migrate import load_migrations

#: One event each, so that a command has the position of its place here.
HISTORY: list[Any] = [
    open_account(),
    request_topup(),
    credit(),
    fee(3),
    payout(97),
    pay_out(),
    reverse(40, "dispute", "dp_1"),
    fee(15, "txn_2"),
    *(reinstate(0), fee(-15, "txn_3")),
    *(fail_payout(), payout(50, "po_2"), fail_payout("po_2")),
    *(payout(60, "po_3"), payout(7, "po_eur", currency="EUR"), resolve()),
    *(place("hold_1", 30), settle("hold_1", 30)),
]

#: In the accounts' own words: (ledger account, currency): debits less credits.
BALANCES = {
    ("processor_clearing", "USD"): 100 - 3 - 60,
    ("processor_fees", "USD"): 3,
    ("cash_in_transit", "USD"): 60,
    ("cash", "USD"): 0,
    ("customer_available", "USD"): -70,
    ("customer_held", "USD"): 0,
    ("revenue", "USD"): -30,
    ("processor_clearing", "EUR"): -7,
    ("cash_in_transit", "EUR"): 7,
}


@pytest.fixture
async def settled(ledger: Ledger) -> Ledger:
    for command in HISTORY:
        await ledger.submit(command)
    return ledger


async def found(db: asyncpg.Connection) -> list[str]:
    return [str(finding) async for finding in check_books(db)]


async def balances(db: asyncpg.Connection | asyncpg.Pool) -> dict[tuple[str, str], int]:
    rows = await db.fetch("SELECT ledger_account, currency, debit_microcents - credit_microcents FROM trial_balance")
    return {(row[0], row[1]): int(row[2]) for row in rows}


async def assert_zero_in_every_currency(db: asyncpg.Connection | asyncpg.Pool) -> None:
    sums: dict[str, int] = {}
    for (_, currency), balance in (await balances(db)).items():
        sums[currency] = sums.get(currency, 0) + balance
    assert set(sums.values()) <= {0}


@pytest.mark.usefixtures("settled")
async def test_the_accounts_say_who_has_the_money_and_balance_in_every_currency(admin: asyncpg.Connection) -> None:
    assert await balances(admin) == BALANCES
    await assert_zero_in_every_currency(admin)
    assert await found(admin) == []
    assert await broken_rules(admin) == []


async def test_a_rebuild_changes_nothing_and_payouts_go_on(settled: Ledger, admin: asyncpg.Connection) -> None:
    await rebuild(admin, [migration.sql for migration in load_migrations()], lambda done, total: None)

    again = await settled.submit(pay_out())
    more = await settled.submit(pay_out("po_3"))

    assert (again.replayed, more.replayed) == (True, False)
    assert await found(admin) == []
    assert await balances(admin) == {**BALANCES, ("cash_in_transit", "USD"): 0, ("cash", "USD"): 60}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(commands=st.lists(strategies.provider_commands | strategies.topup_commands, min_size=1, max_size=25))
async def test_whatever_happens_in_whatever_order_balances_in_every_currency(
    ledger: Ledger, admin: asyncpg.Connection, commands: list[Any]
) -> None:
    prefix = f"{await admin.fetchval('SELECT sum(position) FROM log_heads')}_"
    for account in strategies.ACCOUNTS:
        await ledger.submit(prefixed(open_account(account), prefix))

    for command in commands:
        own = command if command.stream_id.startswith("provider:") else prefixed(command, prefix)
        with suppress(Refused):
            await ledger.submit(own)

    await assert_zero_in_every_currency(admin)
    assert await found(admin) == []


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize(
    ("position", "said", "forgery", "named"),
    [
        (4, '"txn_1"', '"txn_2"', "position 8: charges a processor's fee that was charged before"),
        (6, '"amount_microcents":97', '"amount_microcents":96', "position 6: does not follow"),
        (6, '"currency":"USD"', '"currency":"EUR"', "position 6: does not follow"),
        (6, '"po_1"', '"po_2"', "position 6: does not follow"),
        (11, '"paid_microcents":97', '"paid_microcents":96', "position 11: does not follow"),
        (11, '"po_1"', '"po_3"', "position 11: does not follow"),
        (13, '"in_transit_microcents":50', '"in_transit_microcents":51', "position 13: does not follow"),
        (13, '"po_2"', '"po_1"', "position 13: does not follow"),
        (14, '"po_3"', '"po_2"', "position 14: does not follow"),
    ],
)
async def test_a_check_names_an_event_that_cannot_be_true(
    admin: asyncpg.Connection, position: int, said: str, forgery: str, named: str
) -> None:
    await admin.execute("SET session_replication_role = replica")
    changed = await admin.execute(
        "UPDATE events SET payload = replace(payload::text, $2, $3)::json WHERE position = $1 "
        "AND strpos(payload::text, $2) > 0",
        *(position, said, forgery),
    )
    assert changed == "UPDATE 1"

    findings = await found(admin)

    assert any(finding.startswith(named) for finding in findings), findings


async def test_a_providers_stream_is_no_account(settled: Ledger) -> None:
    state = await settled.account(STRIPE)

    assert state is not None
    assert (state.currency, state.credited, state.spent, state.held) == ("XXX", 0, 0, 0)
