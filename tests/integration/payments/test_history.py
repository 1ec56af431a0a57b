"""Whose top-ups one may see, and how they are paged."""

import pytest

from .conftest import Payer, Till


async def test_top_ups_are_listed_newest_first_a_page_at_a_time(till: Till, payer: Payer) -> None:
    made = []
    for _ in range(5):
        till.clock.advance(seconds=1)
        made.append((await till.checkout(payer)).body["topup_id"])

    pages = []
    query = "?limit=2"
    while True:
        answer = await till.call("GET", f"/v1/topup/history{query}", payer.secret)
        pages.append([line["id"] for line in answer.body])
        if "x-next-cursor" not in answer.headers:
            break
        query = f"?limit=2&cursor={answer.headers['x-next-cursor']}"

    assert pages == [[made[4], made[3]], [made[2], made[1]], [made[0]]]


async def test_one_sees_the_own_account_only_and_finance_and_admin_every_one(till: Till, payer: Payer) -> None:
    await till.ordered(payer)
    other = await till.payer()
    path = f"/v1/topup/history?account_id={payer.account_id}"

    assert [line["amount_cents"] for line in (await till.call("GET", path, payer.secret)).body] == [1000]
    assert (await till.call("GET", path, other.secret)).status == 403
    assert await till.history(other) == []
    for role in ("finance", "admin"):
        answer = await till.call("GET", path, await till.service_token(role))
        assert [line["amount_cents"] for line in answer.body] == [1000]
    assert (await till.call("GET", path, await till.service_token("customer"))).status == 403
    assert (await till.call("GET", "/v1/topup/history", await till.service_token("finance"))).status == 403
    assert (await till.call("GET", "/v1/topup/history")).status == 401


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "cursor=%00", "account_id=%00", "other=1"])
async def test_a_query_that_makes_no_sense_is_refused(till: Till, payer: Payer, query: str) -> None:
    assert (await till.call("GET", f"/v1/topup/history?{query}", payer.secret)).status == 400
