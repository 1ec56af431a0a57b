"""What happens makes its notices once, however the log is followed, and whatever is rebuilt."""

import asyncio
import secrets
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any

import asyncpg
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ledger import ExpireGrant, Ledger, Paid, Refused
from ledger.reading import events_after, head_position, stored_event
from notices import NoticeMaker
from projections import check_books, rebuild
from tests.strategies import ACCOUNTS, TOPUPS, adjustments, hold_commands, placings, prefixed, topup_commands
from tests.unit.ledger.scenes import adjust, grant, open_account, place, request_topup, reverse, settle
from tollgate.migrate import load_migrations

from .conftest import ENDPOINTS, Customer, Office
from .test_deliveries import CENT, in_account, pay

LOW_BALANCE = "/v1/notices/low_balance"
URL = "https://93.184.215.14/hook"


async def set_threshold(office: Office, customer: Customer, cents: Any) -> None:
    answer = await office.call("PUT", LOW_BALANCE, customer.secret, {"threshold_cents": cents})
    assert answer.status == 200, answer


async def made(pool: asyncpg.Pool) -> list[asyncpg.Record]:
    return await pool.fetch("SELECT notice_id, type, body, endpoint_id FROM notices ORDER BY notice_id")


async def low_balances(office: Office) -> int:
    await office.make()
    return sum(row["type"] == "balance.low" for row in await made(office.ledger.pool))


async def test_a_balance_that_falls_below_the_threshold_is_told_once_until_it_was_above_again(
    office: Office, customer: Customer
) -> None:
    await office.add(customer, URL)
    await set_threshold(office, customer, 500)
    seen = []
    for number, cents in enumerate((1000, -499, -1, -1, -100, 101, -1, 1, -1)):
        await office.submit(*in_account(customer, adjust(cents * CENT, f"a{number}")))
        seen.append(await low_balances(office))

    #               1000 501 500 499 399 500 499 500 499
    assert seen == [0, 0, 0, 1, 1, 1, 2, 2, 3]


async def test_a_hold_is_no_fall_of_the_balance_and_its_settlement_is(office: Office, customer: Customer) -> None:
    await office.add(customer, URL)
    await set_threshold(office, customer, Decimal("500.5"))
    await office.submit(*in_account(customer, grant(1000 * CENT), place("hold_1", 900 * CENT)))
    held = await low_balances(office)
    await office.submit(*in_account(customer, place("hold_2", 40 * CENT), settle("hold_1", 600 * CENT)))
    settled = await low_balances(office)

    (row,) = await made(office.ledger.pool)
    assert (held, settled) == (0, 1)
    assert f'"data":{{"account_id":"{customer.account_id}","currency":"USD","threshold_cents":500.5,' in row["body"]
    assert '"balance_cents":400,"held_cents":40,"available_cents":360}' in row["body"]


async def test_who_sets_a_threshold_above_the_balance_knows_and_is_told_of_the_next_fall(
    office: Office, customer: Customer
) -> None:
    await office.add(customer, URL)
    await office.submit(*in_account(customer, grant(100 * CENT)))
    await set_threshold(office, customer, 500)
    await office.submit(*in_account(customer, adjust(-1 * CENT, "a")))
    below = await low_balances(office)
    await office.submit(*in_account(customer, adjust(1000 * CENT, "b"), adjust(-900 * CENT, "c")))

    assert below == 0
    assert await low_balances(office) == 1


async def test_the_threshold_is_shown_changed_and_removed(office: Office, customer: Customer) -> None:
    shown = []
    for cents in (Decimal("0.000001"), 0, 250, None):
        await set_threshold(office, customer, cents)
        shown.append((await office.call("GET", LOW_BALANCE, customer.secret)).body["threshold_cents"])
    await office.submit(*in_account(customer, grant(1000 * CENT), adjust(-1000 * CENT, "a")))

    assert shown == [Decimal("0.000001"), 0, 250, None]
    assert await low_balances(office) == 0


@pytest.mark.parametrize("cents", [-1, "five", Decimal("0.0000001"), True, 10**30], ids=str)
async def test_what_is_no_threshold_is_refused(office: Office, customer: Customer, cents: Any) -> None:
    answer = await office.call("PUT", LOW_BALANCE, customer.secret, {"threshold_cents": cents})

    assert (answer.status, answer.code) == (400, "invalid_request")
    assert answer.body["error"]["param"] == "threshold_cents"


async def test_a_key_with_limits_cannot_change_the_threshold(office: Office, customer: Customer) -> None:
    limited = await office.customer(rate_limit_rpm=10, account_id=customer.account_id)

    answer = await office.call("PUT", LOW_BALANCE, limited.secret, {"threshold_cents": 1})

    assert answer.code == "forbidden"
    assert (await office.call("GET", LOW_BALANCE, limited.secret)).body == {"threshold_cents": None}


async def test_one_event_can_be_told_as_a_reversal_and_as_a_low_balance(office: Office, customer: Customer) -> None:
    await office.add(customer, URL)
    await set_threshold(office, customer, 500)
    await pay(office, customer)
    await office.submit(*in_account(customer, reverse(1000 * CENT)))
    await office.make()

    assert sorted(row["type"] for row in await made(office.ledger.pool)) == [
        "balance.low",
        "topup.credited",
        "topup.reversed",
    ]


#: So that most of what follows happens: accounts that are open, and top-ups that can be paid.
FURNISHED = [
    *(open_account(account) for account in ACCOUNTS),
    *(request_topup(topup, 60, asked=Paid("USD", Decimal("1.50")), account=ACCOUNTS[0]) for topup in TOPUPS),
]


@settings(max_examples=15)
@given(
    commands=st.lists(st.one_of(adjustments, topup_commands, placings, hold_commands), min_size=20, max_size=50),
    cuts=st.sets(st.integers(min_value=1, max_value=15)),
    threshold=st.integers(min_value=0, max_value=120),
)
async def test_any_events_make_the_same_notices_in_whatever_batches_the_log_is_followed(
    commands: list[Any], cuts: set[int], threshold: int, ledger: Ledger, pool: asyncpg.Pool
) -> None:
    start = await head_position(pool, 0)
    await NoticeMaker(pool).catch_up()
    prefix = secrets.token_hex(4)
    commands = [prefixed(each_anew(command, nth), prefix) for nth, command in enumerate(FURNISHED + commands)]
    accounts = sorted({command.stream_id for command in commands})
    for account in accounts:
        await furnish(pool, account, threshold, start)
    for command in commands:
        try:
            await ledger.submit(command)
        except Refused:
            continue
    head = await head_position(pool, 0)

    stops = sorted({start, head, *(start + cut for cut in cuts if start + cut < head)})
    async with pool.acquire() as connection:
        for _, stop in pairwise(stops):
            await NoticeMaker(pool).advance(connection, 0, stop)
            await NoticeMaker(pool).advance(connection, 0, stop)

    rows = await pool.fetch(
        "SELECT endpoint_id, type, created_at FROM notices WHERE endpoint_id LIKE $1", f"%{prefix}%"
    )
    found = sorted((row["endpoint_id"], row["type"], row["created_at"]) for row in rows)
    assert found == sorted(await expected(pool, start, head, threshold))


def each_anew(command: Any, nth: int) -> Any:
    """The command under an idempotency key of its own, where it has one."""
    return replace(command, idempotency_key=f"key {nth}") if hasattr(command, "idempotency_key") else command


async def furnish(pool: asyncpg.Pool, account: str, threshold: int, position: int) -> None:
    """An endpoint and a threshold, as if made before the position after this."""
    await pool.execute(
        "INSERT INTO webhook_endpoints (shard, endpoint_id, account_id, url, secret, created_at, after_position)"
        " VALUES (0, $1, $1, 'https://x.example', '', now(), $2)",
        account,
        position,
    )
    await pool.execute("INSERT INTO low_balance_thresholds VALUES (0, $1, $2, $3)", account, threshold, position)


async def expected(pool: asyncpg.Pool, start: int, head: int, threshold: int) -> list[tuple[Any, ...]]:
    """What the events say one after the other: (endpoint, type, moment)."""
    told: list[tuple[Any, ...]] = []
    balances: dict[str, int] = {}
    async for batch in events_after(pool, 0, after=start, upto=head):
        for stored in map(stored_event, batch):
            tag = str(stored.event.__struct_config__.tag)
            if tag.startswith("topup.") and tag not in ("topup.requested", "topup.pending"):
                told.append((stored.stream_id, tag, stored.at))
            if stored.balance_microcents is None:
                continue
            before = balances.get(stored.stream_id)
            if before is not None and before >= threshold > stored.balance_microcents:
                told.append((stored.stream_id, "balance.low", stored.at))
            balances[stored.stream_id] = stored.balance_microcents
    return told


async def test_credit_that_expires_unspent_is_told_and_so_is_the_low_balance_that_it_leaves(
    office: Office, customer: Customer
) -> None:
    await office.add(customer, URL)
    await set_threshold(office, customer, 500)
    expires_at = office.clock.now + timedelta(days=1)
    await office.submit(*in_account(customer, replace(grant(1000 * CENT), expires_at=expires_at)))
    office.clock.advance(days=2)
    account = await office.ledger.account(customer.account_id)
    assert account is not None
    grant_id = account.grants[0].grant_id
    await office.submit(ExpireGrant(stream_id=customer.account_id, grant_id=grant_id))
    await office.make()

    said = {row["type"]: msgspec.json.decode(row["body"])["data"] for row in await made(office.ledger.pool)}
    assert said.keys() == {"grant.expired", "balance.low"}
    assert said["grant.expired"] == {
        "account_id": customer.account_id,
        "grant_id": grant_id,
        "currency": "USD",
        "amount_cents": 1000,
        "balance_cents": 0,
    }


async def test_many_processes_at_once_make_every_notice_once(office: Office, customer: Customer) -> None:
    await office.add(customer, URL)
    for number in range(30):
        await pay(office, customer, number)

    await asyncio.gather(*[NoticeMaker(office.ledger.pool).catch_up() for _ in range(6)])

    assert len(await made(office.ledger.pool)) == 30


async def test_a_rebuild_makes_no_notice_again_and_the_books_are_in_order(
    office: Office, customer: Customer, admin: asyncpg.Connection
) -> None:
    await office.add(customer, URL)
    await pay(office, customer, 1)
    await office.make()
    before = await made(office.ledger.pool)
    await admin.execute("DELETE FROM notices")  # as after their time

    await rebuild(admin, [migration.sql for migration in load_migrations()], lambda done, total: None)
    await office.make()
    await pay(office, customer, 2)
    await office.make()

    assert len(before) == 1
    assert [row["type"] for row in await made(office.ledger.pool)] == ["topup.credited"]
    assert [finding async for finding in check_books(admin)] == []


async def test_an_endpoint_that_is_deleted_takes_everything_with_it(
    office: Office, customer: Customer, admin: asyncpg.Connection
) -> None:
    endpoint = await office.add(customer, "http://127.0.0.1:9/nobody-listens")
    await pay(office, customer)
    await office.work()

    kept = await admin.fetchval("SELECT count(*) FROM notice_attempts")
    await office.call("DELETE", f"{ENDPOINTS}/{endpoint['id']}", customer.secret)

    assert kept == 1
    for table in ("webhook_endpoints", "notices", "notice_attempts"):
        assert await admin.fetchval(f"SELECT count(*) FROM {table}") == 0
