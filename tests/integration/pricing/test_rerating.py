"""Re-rating over a real ledger: interrupted, done twice, and done by two at once."""

import asyncio
import os
import signal
import sys
from typing import Any

import asyncpg

from ledger import Ledger
from ledger.charges import ChargesAsked, StoredCharge, charges
from pricing import PricedProgram
from pricing.publishing import publish, read_price_book
from pricing.rerating import AT_ONCE, CORRECTED_MEANWHILE, Leftovers, Rerating, carry_out
from projections import ProjectionRunner, check_books
from tests.conftest import Clock, Connect
from tests.integration.ledger.stored import broken_rules
from tests.unit.ledger.scenes import A, B, create_key, draw, grant, open_account, place, settle


def text(price: int) -> str:
    return (
        f'id = "p"\ncurrency = "USD"\n[[charges]]\nname = "c"\nmeter = "tokens"\nprice = {price}\nper = 100_000_000\n'
    )


async def versions(ledger: Ledger, *prices: int) -> list[PricedProgram]:
    """A version at each price of a token in microcents."""
    for price in prices:
        await publish(ledger, text(price), published_by="anna", confirmed=True)
    book = await read_price_book(ledger)
    return [book.program("p", number) for number in range(1, len(prices) + 1)]


async def charge(ledger: Ledger, priced: PricedProgram, holds: dict[str, Any], amount: int = 30) -> None:
    """An open account with a key for each of the names, and this many settlements of 10 tokens, in order."""
    for account, count in holds.items():
        await ledger.submit(open_account(account))
        await ledger.submit(grant(100_000, account=account))
        await ledger.submit(create_key(f"key_{account}", account=account))
        for n in range(count):
            hold_id = f"hold_{account}_{n}"
            held = place(hold_id, amount, stream_id=account, key_id=f"key_{account}", price=priced.ref)
            await ledger.submit(held)
            await ledger.submit(settle(hold_id, amount, usage={"tokens": 10}, account=account))


async def stored_charges(db: asyncpg.Connection, clock: Clock, **asked: Any) -> list[StoredCharge]:
    period = {"start": clock().replace(hour=0), "until": clock().replace(hour=23)}
    async with db.transaction():
        return [each async for batch in charges(db, 0, ChargesAsked(**{**period, **asked})) for each in batch]


async def somebody_waits_for(admin: asyncpg.Connection) -> None:
    """Return once a backend is seen waiting for this connection's transaction."""
    waiting = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND transactionid = pg_current_xact_id()::xid)"
    async with asyncio.timeout(30):
        while not await admin.fetchval(waiting):
            pass  # the server has answered meanwhile, so that everybody else had a turn


async def test_the_charges_of_a_period_are_read_back_with_their_corrections(
    ledger: Ledger, admin: asyncpg.Connection, clock: Clock
) -> None:
    wrong, right = await versions(ledger, 3, 2)
    await charge(ledger, wrong, {A: 2, B: 1})
    await ledger.submit(place("hold_d", 9, price=right.ref, model="n"))
    await ledger.submit(draw("hold_d", 4))
    await ledger.submit(place("hold_v", 9, price=right.ref))
    found = await stored_charges(admin, clock)
    (correction,) = Rerating(wrong.ref, right, await read_price_book(ledger)).to_correct(found[:1])
    await ledger.submit(correction.command(right.ref, reason="r", rerated_by="anna"))

    (corrected, *rest) = await stored_charges(admin, clock)

    assert [(each.account_id, each.event.hold_id, each.reference) for each in found] == [
        (A, "hold_acct_a_0", None), (A, "hold_acct_a_1", None), (B, "hold_acct_b_0", None), (A, "hold_d", "task_1"),
    ]  # fmt: skip
    assert (corrected.amount_microcents, corrected.prices) == (20, (wrong.ref, right.ref))
    assert [each.amount_microcents for each in rest] == [30, 30, 4]
    assert corrected.available_microcents == 100_000 - 20 - 30 - 9 - 9
    for asked, count in (
        ({"account_id": B}, 1),
        ({"models": ["n"]}, 1),
        ({"models": ["n", "m"]}, 4),
        ({"operation": "none"}, 0),
        ({"priced_by": ("p", 1)}, 3),
        ({"priced_by": ("p", 2)}, 2),  # of the first program it is, or corrected
        ({"until": clock()}, 0),
        ({"start": clock()}, 4),
    ):
        assert len(await stored_charges(admin, clock, **asked)) == count, asked


async def test_a_re_rating_that_is_killed_in_the_middle_is_finished_by_the_next(
    ledger: Ledger, admin: asyncpg.Connection, clock: Clock, database_url: str
) -> None:
    wrong, _ = await versions(ledger, 3, 2)
    count = AT_ONCE + 4
    await charge(ledger, wrong, {A: count, B: 6})
    arguments = ("prices", "rerate", "p@1", "--to", "p@2", "--from", "2026-11-21", "--to-time", "2026-11-22")

    def rerate() -> Any:
        return asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tollgate.cli", *arguments, "--apply", "--reason", "r"),
            env={"TOLLGATE_DATABASE_URL": database_url, "PATH": "/usr/bin"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )

    async with admin.transaction():
        await admin.execute("SELECT FROM account_states WHERE account_id = $1 FOR UPDATE", B)
        first = await rerate()
        await somebody_waits_for(admin)
        os.kill(first.pid, signal.SIGKILL)
        await first.wait()
    corrected = "SELECT count(*) FROM events WHERE type = 'charge.rerated'"
    at_the_kill = await admin.fetchval(corrected)
    out, _ = await (await rerate()).communicate()
    third, _ = await (await rerate()).communicate()

    assert at_the_kill == AT_ONCE
    assert f"corrected {count + 6 - AT_ONCE} charges" in out.decode()
    assert "corrected 0 charges" in third.decode()
    assert await admin.fetchval(corrected) == count + 6
    state = await ledger.account(A)
    assert state is not None
    assert state.spent == 20 * count
    (key,) = await ledger.keys(A)
    assert key.month_spent == 20 * count
    assert await broken_rules(admin) == []
    await ProjectionRunner(ledger.pool).catch_up()
    assert [str(finding) async for finding in check_books(admin)] == []


async def test_of_two_re_ratings_of_the_same_charges_each_charge_goes_to_one_and_the_other_looks_again(
    ledger: Ledger, pool: asyncpg.Pool, connect: Connect, admin: asyncpg.Connection, clock: Clock
) -> None:
    wrong, low, high = await versions(ledger, 3, 2, 5)
    await charge(ledger, wrong, {A: 40, B: 40})
    found = await stored_charges(admin, clock)
    book = await read_price_book(ledger)
    ledgers = [ledger, await Ledger.open(pool, connect, clock)]
    refused = [Leftovers(), Leftovers()]

    corrected = await asyncio.gather(
        *[
            carry_out(
                ledgers[n],
                Rerating(wrong.ref, right, book).to_correct(found),
                right.ref,
                reason="r",
                rerated_by="anna",
                refused=refused[n],
            )
            for n, right in enumerate((low, high))
        ]
    )

    await ledgers[1].close()
    assert sum(corrected) == 80
    assert {reason for each in refused for _, reason in each.by_reason} == {CORRECTED_MEANWHILE}
    assert sum(left.charges for each in refused for left in each.by_reason.values()) == 80
    assert await broken_rules(admin) == []
    amounts = [each.amount_microcents for each in await stored_charges(admin, clock)]
    assert sum(amounts) == 20 * corrected[0] + 50 * corrected[1]


async def test_a_second_re_rating_begins_from_what_the_first_left(
    ledger: Ledger, admin: asyncpg.Connection, clock: Clock
) -> None:
    first, second, third = await versions(ledger, 3, 5, 4)
    await charge(ledger, first, {A: 3})
    book = await read_price_book(ledger)
    for wrong, right in ((first, second), (second, third)):
        corrections = Rerating(wrong.ref, right, book).to_correct(await stored_charges(admin, clock))
        left = Leftovers()
        assert await carry_out(ledger, corrections, right.ref, reason="r", rerated_by="anna", refused=left) == 3

    found = await stored_charges(admin, clock)

    assert [[c.before_microcents for c in each.corrections] for each in found] == [[30, 50]] * 3
    assert [each.amount_microcents for each in found] == [40] * 3
    assert await broken_rules(admin) == []
