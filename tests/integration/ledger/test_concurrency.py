"""Many submitters, several committers, one database: every limit exact, every number in its place."""

import asyncio
from collections import Counter
from typing import Any

import asyncpg
import pytest

from ledger import Committed, Ledger
from tests.conftest import Clock
from tests.integration.ledger.stored import broken_rules
from tests.strategies import prefixed
from tests.unit.ledger.scenes import create_key, draw, grant, open_account, place, publish, rerate, settle, void


async def race(ledgers: list[Ledger], commands: list[Any]) -> Counter[str]:
    """Submit all at once, spread over the ledgers; how many came out how."""
    submissions = [ledgers[n % len(ledgers)].submit(command) for n, command in enumerate(commands)]
    results = await asyncio.gather(*submissions, return_exceptions=True)
    return Counter(
        ("replayed" if result.replayed else "accepted") if isinstance(result, Committed) else type(result).__name__
        for result in results
    )


@pytest.mark.money_bug(1)
async def test_ten_times_as_many_holds_as_the_balance_covers_admit_exactly_as_many_as_it_covers(
    ledgers: list[Ledger], admin: asyncpg.Connection
) -> None:
    await ledgers[0].submit(open_account())
    await ledgers[0].submit(grant(1_000))

    results = await race(ledgers, [place(f"hold_{n}", 30) for n in range(330)])

    assert results == {"accepted": 33, "InsufficientFunds": 297}
    account = await ledgers[1].account("acct_a")
    assert account is not None
    assert (account.available, account.held) == (10, 990)
    assert await broken_rules(admin) == []


@pytest.mark.money_bug(5, 6)
async def test_a_monthly_budget_and_a_rate_limit_are_exact_over_all_committers(
    ledgers: list[Ledger], admin: asyncpg.Connection
) -> None:
    await ledgers[0].submit(open_account())
    await ledgers[0].submit(grant(1_000_000))
    await ledgers[0].submit(create_key("by_budget", budget=700))
    await ledgers[0].submit(create_key("by_rate", rpm=17))

    by_budget = await race(ledgers, [place(f"b_{n}", 30, key_id="by_budget") for n in range(230)])
    by_rate = await race(ledgers, [place(f"r_{n}", 30, key_id="by_rate") for n in range(170)])

    assert by_budget == {"accepted": 23, "BudgetExceeded": 207}
    assert by_rate == {"accepted": 17, "RateLimited": 153}
    assert await broken_rules(admin) == []


async def test_all_books_are_sound_after_a_crowd_of_submitters(
    ledgers: list[Ledger], admin: asyncpg.Connection, clock: Clock
) -> None:
    async def customer(number: int) -> None:
        ledger, prefix = ledgers[number % 4], f"{number % 7}_"
        for command in (open_account(), grant(500, f"grant_{number}"), create_key()):
            await ledger.submit(prefixed(command, prefix))
        for n in range(8):
            hold = f"hold_{number}_{n}"
            await ledger.submit(prefixed(place(hold, 20, key_id="key_1"), prefix))
            await ledger.submit(prefixed(draw(hold, 3), prefix))
            clock.advance(microseconds=1)
            end = void(hold) if n % 3 == 0 else settle(hold, 10 + n)
            await ledger.submit(prefixed(end, prefix))

    await asyncio.gather(*[customer(number) for number in range(28)])

    assert await admin.fetchval("SELECT count(*) FROM events") == 28 * (1 + 8 * 3) + 7 * 2
    assert await broken_rules(admin) == []


async def test_one_account_opened_by_everybody_at_once_is_opened_once(
    ledgers: list[Ledger], admin: asyncpg.Connection
) -> None:
    for n in range(5):
        assert await race(ledgers, [open_account(f"acct_{n}")] * 8) == {"accepted": 1, "replayed": 7}
    assert await race(ledgers, [publish()] * 4) == {"accepted": 1, "replayed": 3}
    assert await broken_rules(admin) == []


async def test_groups_that_open_the_same_accounts_in_any_order_all_end(
    ledgers: list[Ledger], admin: asyncpg.Connection
) -> None:
    accounts = [open_account(f"acct_{n}") for n in range(40)]

    results = await asyncio.gather(
        race(ledgers[:1], accounts),
        race(ledgers[1:2], accounts[::-1]),
        race(ledgers[2:3], accounts[20:] + accounts[:20]),
    )

    assert sum(result["accepted"] for result in results) == 40
    assert sum(result["replayed"] for result in results) == 80
    assert await broken_rules(admin) == []


async def test_of_many_different_ends_of_one_hold_exactly_one_wins(
    ledgers: list[Ledger], admin: asyncpg.Connection
) -> None:
    await ledgers[0].submit(open_account())
    await ledgers[0].submit(grant(1_000))
    for n in range(5):
        await ledgers[0].submit(place(f"hold_{n}", 100))

        results = await race(ledgers, [settle(f"hold_{n}", amount) for amount in range(1, 20)] + [void(f"hold_{n}")])

        assert results == {"accepted": 1, "HoldAlreadyEnded": 19}
    assert await broken_rules(admin) == []


@pytest.mark.money_bug(20)
async def test_the_same_end_sent_by_everybody_has_one_effect_and_one_answer(
    ledgers: list[Ledger], admin: asyncpg.Connection
) -> None:
    await ledgers[0].submit(open_account())
    await ledgers[0].submit(grant(1_000))
    await ledgers[0].submit(place("hold_1", 100))

    results = await asyncio.gather(*[ledgers[n % 4].submit(settle("hold_1", 60)) for n in range(20)])

    assert len({(result.stored.position, result.stored.seq) for result in results}) == 1
    assert sum(not result.replayed for result in results) == 1
    assert await broken_rules(admin) == []


async def test_the_same_hold_placed_by_everybody_is_placed_once_though_it_takes_the_whole_balance(
    ledgers: list[Ledger], admin: asyncpg.Connection
) -> None:
    await ledgers[0].submit(open_account())
    await ledgers[0].submit(grant(100))

    results = await race(ledgers, [place("hold_1", 100)] * 12)

    assert results == {"accepted": 1, "replayed": 11}
    assert await broken_rules(admin) == []


async def test_of_two_corrections_of_one_charge_by_two_processes_one_is_carried_out(
    ledgers: list[Ledger], admin: asyncpg.Connection
) -> None:
    for command in [open_account(), grant(1_000), *[place(f"hold_{n}", 10) for n in range(20)]]:
        await ledgers[0].submit(command)
    for n in range(20):
        await ledgers[0].submit(settle(f"hold_{n}", 10))

    results = await asyncio.gather(
        *[ledgers[i].submit(rerate(f"hold_{n}", 11 + i)) for n in range(20) for i in range(4)], return_exceptions=True
    )

    refusals = [type(result).__name__ for result in results if isinstance(result, BaseException)]
    assert refusals == ["IdempotencyMismatch"] * 60
    assert await admin.fetchval("SELECT count(*) FROM events WHERE type = 'charge.rerated'") == 20
    assert await broken_rules(admin) == []
