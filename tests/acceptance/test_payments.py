"""Payments from outside: a demo with a simulated Stripe, which is told what customers and banks do, and fails."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio

from tests.acceptance.customers import new_customer
from tests.acceptance.running_demo import RunningDemo, place_for_demo, until
from tests.acceptance.shop import Shop, Stripe

#: Anybody's number for an advisory lock, which storing a notification waits for when a test wants it to.
GATE = 4711

_HOLD_INSERTS = f"""
CREATE FUNCTION wait_for_test() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_advisory_xact_lock_shared({GATE}); RETURN NULL; END $$;
CREATE TRIGGER wait_for_test AFTER INSERT ON payment_notifications FOR EACH ROW EXECUTE FUNCTION wait_for_test();
"""
_LET_INSERTS_GO = "DROP TRIGGER wait_for_test ON payment_notifications; DROP FUNCTION wait_for_test()"
_WAITING = (
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%payment_notifications%'"
)


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
            assert directory.processes() == []
            assert directory.leavings() == []
        finally:
            await stripe.http.close()
            await demo.kill()


@pytest_asyncio.fixture
async def shop(paying_demo: tuple[RunningDemo, Stripe]) -> AsyncIterator[Shop]:
    demo, stripe = paying_demo
    await stripe.endpoint(demo)
    yield Shop(demo, stripe, await new_customer(demo))
    await stripe.play("faults")


@pytest.fixture(autouse=True)
def secrets_of_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the demo prints them, for the commands beside it."""
    monkeypatch.setenv("TOLLGATE_STRIPE_API_KEY", "sk_test_demo")
    monkeypatch.setenv("TOLLGATE_STRIPE_WEBHOOK_SECRETS", "whsec_demo")


async def test_a_customer_pays_on_the_page_and_has_the_money(shop: Shop) -> None:
    before = await shop.balance()
    checkout = (await shop.order(2500)).json

    await shop.stripe.http.post(urlsplit(checkout["checkout_url"]).path, None)
    line = await shop.until_status("credited")

    assert await shop.balance() - before == 2500
    assert (line["id"], line["amount_cents"], line["source"]) == (checkout["topup_id"], 2500, "stripe")
    assert line["reference_id"].startswith("pi_")


async def test_the_demo_says_how_to_pay(shop: Shop) -> None:
    for part in ("topup/stripe/checkout", "topup/history", shop.demo.information.stripe_url, "payments refund"):
        assert str(part) in shop.demo.output


@pytest.mark.money_bug(50)
async def test_a_worker_killed_between_storing_and_answering_and_five_deliveries_in_any_order_credit_once(
    shop: Shop,
) -> None:
    session_id = await shop.ordered()

    async with stopped_before_answering(shop):
        await shop.stripe.pay(session_id)
    await shop.until_status("credited")
    deliveries = await shop.stripe.events() * 5
    random.Random(1).shuffle(deliveries)
    statuses = await asyncio.gather(*[shop.tell(event) for event in deliveries])

    assert set(statuses) == {200}
    await shop.until_nothing_waits()
    assert await shop.count("topup.credited") == 1
    assert (await shop.history())[0]["status"] == "credited"


@asynccontextmanager
async def stopped_before_answering(shop: Shop) -> AsyncIterator[None]:
    """What is delivered inside is stored, and then the worker is killed before it can answer."""
    stored = len(await shop.demo.fetch("SELECT 1 FROM payment_notifications"))
    (worker,) = shop.demo.gate_workers
    async with shop.demo.sql() as connection:
        await connection.execute(_HOLD_INSERTS)
        await connection.execute("SELECT pg_advisory_lock($1)", GATE)
        yield
        await until(lambda: connection.fetchval(_WAITING))
        os.kill(worker, signal.SIGSTOP)
        await connection.execute("SELECT pg_advisory_unlock($1)", GATE)
        await until(lambda: more_than(connection, stored))  # committed, and nobody there to say so
        os.kill(worker, signal.SIGKILL)
        await connection.execute(_LET_INSERTS_GO)
    await shop.demo.until_workers_serve(instead_of=[worker])


async def more_than(connection: asyncpg.Connection, stored: int) -> bool:
    return bool(await connection.fetchval("SELECT count(*) > $1 FROM payment_notifications", stored))


@pytest.mark.money_bug(50)
async def test_a_worker_killed_between_answering_and_booking_leaves_it_to_another(shop: Shop) -> None:
    session_id = await shop.ordered()
    taken = await shop.stripe.taken()
    async with shop.demo.sql() as connection, connection.transaction():
        # Nobody books for this account as long as we have its row.
        await connection.execute(
            "SELECT FROM account_states WHERE account_id = $1 FOR UPDATE", shop.customer.account_id
        )
        await shop.stripe.pay(session_id)
        await until(lambda: three_more(shop, taken))
        workers = shop.demo.gate_workers
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
    await shop.demo.until_workers_serve(instead_of=workers)

    await shop.until_status("credited")
    await shop.until_nothing_waits()
    assert await shop.count("topup.credited") == 1


async def three_more(shop: Shop, taken: int) -> bool:
    return await shop.stripe.taken() >= taken + 3


@pytest.mark.money_bug(48)
async def test_what_stripe_did_not_sign_is_refused(shop: Shop) -> None:
    await shop.stripe.endpoint(shop.demo, held=True)
    await shop.stripe.pay(await shop.ordered())
    (event,) = [each for each in await shop.stripe.events() if each["type"] == "payment_intent.succeeded"][-1:]

    unsigned = await shop.tell(event, "")
    other = await shop.tell({**event, "body": event["body"].replace('"amount_received":2500', '"amount_received":1')})
    old = await shop.tell(event, "t=1,v1=" + event["signature"].partition("v1=")[2])

    assert (unsigned, other, old) == (400, 400, 400)
    assert (await shop.history())[0]["status"] == "pending"


@pytest.mark.money_bug(49)
@pytest.mark.parametrize("paid", [{"amount": 1}, {"currency": "jpy"}], ids=str)
async def test_a_payment_that_is_not_what_was_asked_for_is_listed_as_broken_and_raises_an_alarm(
    shop: Shop, paid: dict[str, Any]
) -> None:
    session_id = await shop.ordered()
    before = await shop.balance()

    await shop.stripe.play(f"sessions/{session_id}/pay", **paid)

    async def alarmed() -> bool:
        return shop.demo.output.count("payment.broken") >= 2

    await until(alarmed)
    await shop.until_nothing_waits()
    assert await shop.balance() == before
    listed = await shop.demo.command("payments", "notifications", "--status", "broken")
    assert (listed.status, listed.err) == (0, "")
    assert "TopupMismatch" in listed.out
    metrics = (await shop.demo.http.get("/metrics")).body.decode()
    assert 'tollgate_payment_breaks_total{provider="stripe",reason="TopupMismatch"}' in metrics


@pytest.mark.money_bug(51)
async def test_an_operator_gives_back_what_is_left_and_a_replay_of_everything_changes_nothing(shop: Shop) -> None:
    await shop.stripe.pay(await shop.ordered(1000))
    topup_id = (await shop.until_status("credited"))["id"]

    part = await shop.demo.command("payments", "refund", topup_id, "--amount", "300", "--reason", "by mail")
    too_much = await shop.demo.command("payments", "refund", topup_id, "--amount", "701", "--reason", "by mail")
    rest = await shop.demo.command("payments", "refund", topup_id, "--reason", "by mail")

    assert part.out == f"{topup_id}  refunded 3.00 USD  3.00 USD of 10.00 USD in all\n"
    assert (too_much.status, too_much.out) == (1, "")
    assert rest.out == f"{topup_id}  refunded 7.00 USD  10.00 USD of 10.00 USD in all\n"
    await shop.until_nothing_waits()
    events = await shop.demo.count_events()
    replayed = await shop.demo.command("payments", "replay", "--status", "processed")
    assert (replayed.status, replayed.err) == (0, "")
    assert await shop.demo.count_events() == events
    assert (await shop.until_status("reversed"))["reversed_cents"] == 1000


@pytest.mark.money_bug(51)
async def test_a_dispute_takes_what_was_spent_too_and_a_won_one_gives_it_back(shop: Shop) -> None:
    payment = await shop.stripe.pay(await shop.ordered())
    await shop.until_status("credited")
    await shop.demo.grant(shop.customer.account_id, 1)
    before = await shop.balance()

    dispute = await shop.stripe.play(f"charges/{payment['latest_charge']}/dispute")
    await shop.until_status("reversed")
    assert await shop.balance() == before - 2500
    await shop.stripe.play(f"disputes/{dispute['id']}/close", status="won")
    await shop.until_status("credited")

    assert await shop.balance() == before


async def test_a_stripe_that_is_away_delays_and_loses_nothing(shop: Shop) -> None:
    await shop.stripe.play("faults", status=503)
    refused = await shop.order(2500, **{"Idempotency-Key": "k"})
    await shop.stripe.play("faults", hang_s=1, times=1)
    ordered = await shop.order(2500, **{"Idempotency-Key": "k"})
    await shop.stripe.pay(ordered.json["session_id"])

    assert (refused.status, refused.error["code"]) == (503, "payment_provider_unavailable")
    await shop.until_status("credited")
    assert len(await shop.history()) == 1
