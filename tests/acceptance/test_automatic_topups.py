"""Automatic top-ups from outside: a worker that is killed while Stripe answers it, and a card that is declined."""

import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.acceptance.client import Answer
from tests.acceptance.customers import new_customer
from tests.acceptance.running_demo import RunningDemo, place_for_demo, until
from tests.acceptance.shop import Shop, Stripe

CARD = "/v1/topup/stripe/card"
AUTOMATIC = "/v1/topup/automatic"
SETTING = {"threshold_cents": 500, "amount_cents": 1000, "monthly_cap_cents": 5000}


@pytest_asyncio.fixture(scope="module")
async def paying_demo() -> AsyncIterator[tuple[RunningDemo, Stripe]]:
    async with place_for_demo() as directory:
        demo = await RunningDemo.start(directory, workers=1, flags=["--payments"])
        stripe = Stripe(demo.information.stripe_url or "")
        try:
            yield demo, stripe
            await demo.assert_books_in_order()
            assert "Traceback" not in demo.output
            assert await demo.stop() == 0
        finally:
            await stripe.http.close()
            await demo.kill()


@pytest_asyncio.fixture
async def saver(paying_demo: tuple[RunningDemo, Stripe]) -> AsyncIterator[Shop]:
    """A customer with a dollar and a saved card."""
    demo, stripe = paying_demo
    await stripe.endpoint(demo)
    shop = Shop(demo, stripe, await new_customer(demo))
    page = await ask(shop, "POST", CARD)
    assert page.status == 201, page
    await stripe.play(f"sessions/{page.json['session_id']}/complete")

    async def saved() -> bool:
        return (await ask(shop, "GET", CARD)).status == 200

    await until(saved)
    yield shop
    await stripe.play("faults")


async def ask(shop: Shop, method: str, path: str, body: Any = None) -> Answer:
    return await shop.demo.http.call(method, path, body, headers=shop.customer.bearer(shop.customer.session))


async def paid(shop: Shop) -> int:
    """How many payments of the customer Stripe has taken."""
    own = f'"tollgate_account":"{shop.customer.account_id}"'
    return sum(
        event["type"] == "payment_intent.succeeded" and own in event["body"] for event in await shop.stripe.events()
    )


@pytest.mark.money_bug(50)
@pytest.mark.parametrize("path", ["/v1/payment_intents", "/confirm"])
async def test_a_worker_that_is_killed_before_it_hears_of_the_payment_leaves_one_payment_credited_once(
    saver: Shop, path: str
) -> None:
    before = await saver.balance()
    await saver.stripe.endpoint(saver.demo, held=True)  # nobody else tells of it
    seen = len((await saver.stripe.http.get("/_simulator/requests")).json)
    await saver.stripe.play("faults", stall_s=600, path=path, times=1)
    assert (await ask(saver, "PUT", AUTOMATIC, SETTING)).status == 200

    async def carried_out() -> bool:
        requests = (await saver.stripe.http.get("/_simulator/requests")).json[seen:]
        return any(request["path"].endswith(path) for request in requests)

    await until(carried_out)
    (worker,) = saver.demo.children("worker")
    os.kill(worker, signal.SIGKILL)
    await saver.until_status("credited")

    assert await saver.balance() == before + 1000
    assert await paid(saver) == 1
    for event in await saver.stripe.events():
        await saver.tell(event)
    await saver.until_nothing_waits()
    assert await saver.count("topup.credited") == 1
    assert await saver.count("topup.requested") == 1


async def test_a_card_that_is_declined_is_shown_to_back_off_and_never_tried_at_once_again(saver: Shop) -> None:
    page = await ask(saver, "POST", CARD)
    await saver.stripe.play(f"sessions/{page.json['session_id']}/complete", number="4000000000009995")

    async def replaced() -> bool:
        return bool((await ask(saver, "GET", CARD)).json["last4"] == "9995")

    await until(replaced)
    await ask(saver, "PUT", AUTOMATIC, SETTING)
    await saver.until_status("failed")

    shown = (await ask(saver, "GET", AUTOMATIC)).json
    assert (shown["status"], shown["declines"]) == ("backing_off", 1)
    assert "declined: insufficient_funds" in saver.demo.output
    assert len(await saver.history()) == 1
