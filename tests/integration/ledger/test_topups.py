"""Top-ups as they are stored: credited once by any number of processes, and read back newest first."""

import asyncio
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from ledger import Ledger, Paid, Refused
from tests.conftest import Clock, Connect
from tests.integration.ledger.stored import broken_rules
from tests.integration.ledger.test_concurrency import race
from tests.integration.ledger.test_log_order import writer
from tests.unit.ledger.scenes import (
    credit,
    expire_topup,
    fail_topup,
    grant,
    mark_pending,
    open_account,
    place,
    reinstate,
    request_topup,
    reverse,
    settle,
)


async def test_a_topup_reads_back_as_what_happened_to_it(ledger: Ledger, clock: Clock) -> None:
    begin = clock.now
    for command in (open_account(), request_topup(asked=Paid("USDC", Decimal("10.000001"))), mark_pending()):
        await ledger.submit(command)
    clock.advance(seconds=5)
    await ledger.submit(credit(paid=Paid("USDC", Decimal("10.0000010"))))
    await ledger.submit(reverse(30))
    await ledger.submit(reverse(50, "dispute", "dp_1"))
    await ledger.submit(reverse(20, "reorganisation"))
    last = await ledger.submit(reinstate(10))

    topup = await ledger.topup("acct_a", "topup_1")

    assert topup is not None
    assert (topup.provider, topup.status, topup.amount) == ("stripe", "credited", 100)
    assert (topup.reference, topup.payment_id, topup.requested_by) == ("cs_1", "pi_1", "user_1")
    assert topup.asked == Paid("USDC", Decimal("10.000001"))
    assert (topup.requested_at, topup.credited_at) == (begin, clock.now)
    assert (topup.refunded, topup.disputed, topup.reorganised, topup.reversed) == (30, 10, 20, 60)
    assert (last.account.available, last.stored.balance_microcents) == (40, 40)


async def test_the_history_is_newest_first_page_by_page_and_of_one_account(ledger: Ledger, clock: Clock) -> None:
    for command in (open_account(), open_account("acct_b"), request_topup("topup_of_another", account="acct_b")):
        await ledger.submit(command)
    for n in range(7):
        await ledger.submit(request_topup(f"topup_{n}"))
        clock.advance(seconds=n % 3)  # some at the same moment

    pages: list[list[str]] = []
    while not pages or pages[-1]:
        before = pages[-1][-1] if pages else None
        pages.append([topup.topup_id for topup in await ledger.topups("acct_a", before=before, limit=3)])

    assert [f"topup_{n}" for n in range(6, -1, -1)] == [topup_id for page in pages for topup_id in page]
    assert [len(page) for page in pages] == [3, 3, 1, 0]


async def test_what_is_not_the_accounts_is_not_there(ledger: Ledger) -> None:
    for command in (open_account(), open_account("acct_b"), request_topup()):
        await ledger.submit(command)

    assert await ledger.topup("acct_b", "topup_1") is None
    assert await ledger.topup("acct_a", "topup_2") is None
    assert await ledger.topups("acct_b") == []
    assert await ledger.topups("acct_b", before="topup_1") == []


async def test_one_payment_reported_to_every_process_is_credited_once(
    ledgers: list[Ledger], admin: asyncpg.Connection
) -> None:
    for command in (open_account(), request_topup(), mark_pending()):
        await ledgers[0].submit(command)

    results = await race(ledgers, [credit()] * 20)

    assert results == {"accepted": 1, "replayed": 19}
    assert await broken_rules(admin) == []


async def test_of_two_payments_for_one_topup_one_is_credited(ledgers: list[Ledger], admin: asyncpg.Connection) -> None:
    await ledgers[0].submit(open_account())
    await ledgers[0].submit(request_topup())

    results = await race(ledgers, [credit(payment_id="pi_1"), credit(payment_id="pi_2")] * 6)

    assert results == {"accepted": 1, "replayed": 5, "TopupMismatch": 6}
    assert await broken_rules(admin) == []


async def test_every_total_of_refunds_at_once_takes_the_largest(
    ledgers: list[Ledger], admin: asyncpg.Connection
) -> None:
    for command in (open_account(), request_topup(), credit()):
        await ledgers[0].submit(command)

    results = await race(ledgers, [reverse(total, reason=f"re_{total}") for total in range(5, 85, 5)] * 2)

    topup, account = await ledgers[1].topup("acct_a", "topup_1"), await ledgers[1].account("acct_a")
    assert topup is not None
    assert account is not None
    assert set(results) == {"accepted", "replayed"}
    assert (topup.refunded, account.available) == (80, 20)
    assert await broken_rules(admin) == []


async def test_a_payment_that_another_account_is_being_credited_for_is_refused(
    ledger: Ledger, connect: Connect, admin: asyncpg.Connection
) -> None:
    for account, topup_id in (("acct_a", "topup_1"), ("acct_b", "topup_2")):
        await ledger.submit(open_account(account))
        await ledger.submit(request_topup(topup_id, account=account))
    first = await writer(connect)

    async with first.connection.transaction():
        await first.write(credit("topup_1", "pi_1"))
        second = asyncio.create_task(ledger.submit(credit("topup_2", "pi_1", account="acct_b")))
        await somebody_waits(admin)

    with pytest.raises(Refused, match="payment pi_1 was credited to another top-up"):
        await second
    topup = await ledger.topup("acct_b", "topup_2")
    assert topup is not None
    assert topup.status == "requested"
    assert await broken_rules(admin) == []


async def test_a_topup_id_that_another_account_is_using_at_this_moment_is_refused(
    ledger: Ledger, connect: Connect, admin: asyncpg.Connection
) -> None:
    await ledger.submit(open_account("acct_a"))
    await ledger.submit(open_account("acct_b"))
    first = await writer(connect)

    async with first.connection.transaction():
        await first.write(request_topup("topup_1", 70))
        second = asyncio.create_task(ledger.submit(request_topup("topup_1", 80, account="acct_b")))
        await somebody_waits(admin)

    with pytest.raises(Refused, match="used before with other content"):
        await second
    assert await ledger.topups("acct_b") == []
    assert await broken_rules(admin) == []


async def test_a_group_mixes_topups_with_everything_else(ledger: Ledger, admin: asyncpg.Connection) -> None:
    commands: list[Any] = [
        open_account(),
        request_topup(),
        mark_pending(),
        place("hold_1", 100),  # there is nothing yet
        credit(),
        place("hold_2", 100),
        reverse(100, "dispute", "dp_1"),
        settle("hold_2", 100),
        grant(200),
        reinstate(0),
        *(request_topup("topup_2"), fail_topup("topup_2"), expire_topup("topup_2")),
    ]

    results = await asyncio.gather(*[ledger.submit(command) for command in commands], return_exceptions=True)

    refused = {n: type(result).__name__ for n, result in enumerate(results) if isinstance(result, BaseException)}
    account = await ledger.account("acct_a")
    assert refused == {3: "InsufficientFunds", len(commands) - 1: "TopupOver"}
    assert account is not None
    assert (account.credited, account.spent, account.available) == (300, 100, 200)
    assert await broken_rules(admin) == []


async def test_a_process_of_the_version_before_goes_on_calling_the_functions_of_a_group(
    ledger: Ledger, pool: asyncpg.Pool
) -> None:
    await ledger.submit(open_account())

    locked = await pool.fetchrow(
        "SELECT accounts, keys, holds, replays FROM lock_group(0::smallint, '{acct_a}', '{}', '{}', '{}', '{}')"
    )
    head = await pool.fetchval(
        "SELECT append_group(0::smallint, $1, NULL, NULL, NULL, '{}', $2)", locked["accounts"], "[]"
    )

    assert head == 1


async def somebody_waits(db: asyncpg.Connection) -> None:
    async with asyncio.timeout(20):
        while not await db.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"):
            pass  # the server has answered meanwhile
