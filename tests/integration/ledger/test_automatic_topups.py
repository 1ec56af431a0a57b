"""The accounts that are to be topped up are found by what the books say of them."""

import asyncpg

from ledger import AutomaticTopup, Ledger, Microcents, load_queries
from tests.integration.ledger.stored import broken_rules
from tests.unit.ledger.scenes import A, B, adjust, grant, open_account, place, settle, top_up_below


async def test_an_account_is_to_be_topped_up_while_its_available_balance_is_below_the_threshold(
    ledger: Ledger, admin: asyncpg.Connection
) -> None:
    async def found() -> list[str]:
        return [account.account_id for account in await ledger.accounts_to_top_up()]

    for command in (open_account(), open_account(B), grant(100), grant(5, account=B), top_up_below(50, account=B)):
        await ledger.submit(command)

    assert await found() == [B]
    await ledger.submit(top_up_below(50))
    assert await found() == [B]
    await ledger.submit(place("hold_1", 50))
    assert await found() == [B]  # at the threshold is not below it
    await ledger.submit(place("hold_2", 1))
    assert await found() == [A, B]
    await ledger.submit(settle("hold_1", 49))
    assert await found() == [B]
    await ledger.submit(adjust(-1))
    assert await found() == [A, B]
    await ledger.submit(top_up_below(None, key="off"))
    assert await found() == [B]
    assert await broken_rules(admin) == []


async def test_what_was_configured_reads_back_the_same(ledger: Ledger) -> None:
    for command in (open_account(), top_up_below(500, 2_000, 10_000)):
        await ledger.submit(command)

    account = await ledger.account(A)

    assert account is not None
    assert account.automatic_topup == AutomaticTopup(
        threshold=Microcents(500), amount=Microcents(2_000), monthly_cap=Microcents(10_000)
    )


async def test_the_search_does_not_read_the_accounts_that_have_it_off(
    ledger: Ledger, admin: asyncpg.Connection
) -> None:
    await ledger.submit(open_account())
    await admin.execute("SET enable_seqscan = off")
    query = f"EXPLAIN {load_queries('ledger')['accounts_to_top_up']}"

    plan = "\n".join(row[0] for row in await admin.fetch(query, 0))

    assert "account_states_automatic_topup" in plan
