"""Notices from outside: a demo, a customer who spends, and the customer's own server."""

import os
import signal
from typing import Any

from tests.acceptance.customers import new_customer
from tests.acceptance.running_demo import RunningDemo, until
from tests.integration.notices.receiver import hang, open_receiver

ENDPOINTS = "/v1/webhook_endpoints"


async def test_a_low_balance_is_told_under_one_id_also_when_the_worker_is_killed_while_it_tells(
    demo: RunningDemo,
) -> None:
    customer = await new_customer(demo)
    by_login = customer.bearer(customer.session)
    async with open_receiver() as receiver:
        receiver.behaviours = [hang]
        endpoint = (await demo.http.post(ENDPOINTS, {"url": receiver.url}, headers=by_login)).json
        balance = (await demo.http.get("/v1/users/me", headers=by_login)).json["credit_balance_cents"]
        await demo.http.call("PUT", "/v1/notices/low_balance", {"threshold_cents": balance}, headers=by_login)

        for _ in range(2):
            assert (await customer.chat()).status == 200
        await receiver.until_told(1)
        (killed,) = demo.children("worker")
        os.kill(killed, signal.SIGKILL)
        async with demo.sql() as connection:  # as when its lease is over
            await connection.execute("UPDATE notices SET leased_until = now() WHERE leased_until IS NOT NULL")
        await receiver.until_told(2)

        async def delivered() -> Any:
            lines = (await demo.http.get(f"{ENDPOINTS}/{endpoint['id']}/deliveries", headers=by_login)).json
            return lines if lines and lines[0]["status"] == "delivered" else None

        (line,) = await until(delivered)

    first, second = receiver.told
    assert (first.id, first.body) == (second.id, second.body)
    assert first.verified_by(endpoint["secret"])
    assert second.verified_by(endpoint["secret"])
    assert (second.json["type"], second.json["data"]["threshold_cents"]) == ("balance.low", balance)
    assert second.json["data"]["balance_cents"] < balance
    assert line["notice_id"] == second.id
