"""Credit grants over HTTP: spent before paid money, and not at all from their expiry on."""

import secrets
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from tests.acceptance.customers import Customer, new_customer
from tests.acceptance.running_demo import RunningDemo, until


async def book(demo: RunningDemo, what: str, customer: Customer, cents: int, **terms: Any) -> None:
    body = {"account_id": customer.account_id, "amount_cents": cents, "reason": "test", **terms}
    headers = {**demo.operator, "Idempotency-Key": secrets.token_hex(8)}
    answer = await demo.http.post(f"/v1/admin/{what}", body, headers=headers)
    assert answer.status == 201, answer


async def test_a_grant_is_spent_before_paid_money(demo: RunningDemo) -> None:
    customer = await new_customer(demo, cents=0)
    await book(demo, "adjustments", customer, 50)
    in_an_hour = datetime.now(UTC) + timedelta(hours=1)
    await book(demo, "grants", customer, 60, expires_at=in_an_hour.isoformat(), priority=10)

    answer = await customer.chat()
    account = await customer.when_no_hold_is_open()

    assert answer.status == 200
    [grant] = account["credit_grants"]
    cost = Decimal(answer.headers["x-tollgate-cost-cents"])
    assert cost > 0
    assert (Decimal(grant["left_cents"]), Decimal(account["refundable_cents"])) == (60 - cost, 50)


async def test_a_grant_that_expired_pays_for_no_request(demo: RunningDemo) -> None:
    customer = await new_customer(demo, cents=0)
    soon = datetime.now(UTC) + timedelta(seconds=4)
    await book(demo, "grants", customer, 60, expires_at=soon.isoformat())

    async def nothing_is_available() -> bool:
        return bool((await customer.account())["available_cents"] == 0)

    await until(nothing_is_available)
    answer = await customer.chat()

    assert (answer.status, answer.error["available_cents"]) == (402, 0)
    assert (await customer.account())["credit_grants"] == []


async def test_the_command_line_says_what_is_wrong_with_an_expiry(demo: RunningDemo) -> None:
    customer = await new_customer(demo, cents=0)
    for moment, complaint in (
        ("soon", "'soon' is no moment"),
        ("9999-12-31T23:59:59-05:00", "is no moment"),
        ("2001-01-01", "would have expired"),
    ):
        done = await demo.command("account", "grant", customer.account_id, "1", "test", "--expires-at", moment)

        assert done.status in (1, 2)
        assert complaint in done.err
        assert "Traceback" not in done.err
