"""The simulation is what Stripe's own library takes for Stripe, as far as a prepaid account uses it."""

import asyncio

import pytest
import stripe

from simulated_stripe.webhooks import Endpoint

from .conftest import SECRET, Shop, Taker

PATIENCE_S = 10


async def test_a_session_that_is_paid_has_an_intent_a_charge_and_their_events(shop: Shop) -> None:
    session = await shop.session()
    assert (session.status, session.payment_status, session.payment_intent) == ("open", "unpaid", None)

    intent_id = (await shop.play(f"sessions/{session.id}/pay"))["id"]

    session = await shop.client.v1.checkout.sessions.retrieve_async(session.id)
    intent = await shop.client.v1.payment_intents.retrieve_async(intent_id)
    assert (session.status, session.payment_status, session.payment_intent) == ("complete", "paid", intent_id)
    assert (intent.status, intent.amount_received, intent.currency) == ("succeeded", 1000, "usd")
    assert intent.metadata["order"] == "1"
    assert await shop.events() == ["charge.succeeded", "payment_intent.succeeded", "checkout.session.completed"]


@pytest.mark.parametrize(
    ("succeeds", "last"),
    [(True, "checkout.session.async_payment_succeeded"), (False, "checkout.session.async_payment_failed")],
)
async def test_a_payment_that_takes_days_is_settled_later(shop: Shop, succeeds: bool, last: str) -> None:
    session = await shop.session()
    await shop.play(f"sessions/{session.id}/pay", later=True)
    assert await shop.events() == ["checkout.session.completed"]

    settled = await shop.play(f"sessions/{session.id}/settle", succeeds=succeeds)

    assert settled["payment_status"] == ("paid" if succeeds else "unpaid")
    assert (await shop.events())[-1] == last


async def test_refunds_add_up_on_the_charge_and_never_above_it(shop: Shop) -> None:
    intent = await shop.paid()

    for cents in (300, 200):
        await shop.client.v1.refunds.create_async({"payment_intent": intent.id, "amount": cents})
    with pytest.raises(stripe.InvalidRequestError):
        await shop.client.v1.refunds.create_async({"payment_intent": intent.id, "amount": 501})

    charge = await shop.client.v1.charges.retrieve_async(str(intent.latest_charge))
    assert (charge.amount_refunded, charge.refunded) == (500, False)
    assert (await shop.events()).count("charge.refunded") == 2


async def test_a_refund_that_fails_is_the_sellers_money_again(shop: Shop) -> None:
    intent = await shop.paid()
    refund = await shop.client.v1.refunds.create_async({"payment_intent": intent.id, "amount": 300})

    await shop.play(f"refunds/{refund.id}/fail")

    charge = await shop.client.v1.charges.retrieve_async(str(intent.latest_charge))
    assert charge.amount_refunded == 0
    assert (await shop.client.v1.refunds.retrieve_async(refund.id)).status == "failed"
    assert (await shop.events())[-1] == "refund.failed"


async def test_a_dispute_takes_the_money_and_gives_it_back_when_it_is_won(shop: Shop) -> None:
    intent = await shop.paid()

    dispute = await shop.play(f"charges/{intent.latest_charge}/dispute", amount=400)
    await shop.play(f"disputes/{dispute['id']}/close", status="won")

    (listed,) = (await shop.client.v1.disputes.list_async({"payment_intent": intent.id})).data
    assert (listed.id, listed.amount, listed.status) == (dispute["id"], 400, "won")
    assert (await shop.events())[-4:] == [
        "charge.dispute.created",
        "charge.dispute.funds_withdrawn",
        "charge.dispute.closed",
        "charge.dispute.funds_reinstated",
    ]


async def test_the_same_idempotency_key_is_the_same_session_and_never_another_request(shop: Shop) -> None:
    first = await shop.session(key="k")

    assert (await shop.session(key="k")).id == first.id
    assert (await shop.session(key="other")).id != first.id
    with pytest.raises(stripe.IdempotencyError):
        await shop.session(2000, key="k")


async def test_an_answer_that_is_lost_does_not_undo_the_work(shop: Shop) -> None:
    await shop.play("faults", lose_answer=True, times=1)

    with pytest.raises(stripe.APIConnectionError):
        await shop.session(key="k")
    session = await shop.session(key="k")

    async with shop.outside.get("/_simulator/requests") as answer:
        assert [request["path"] for request in await answer.json()] == ["/v1/checkout/sessions"] * 2
    assert session.status == "open"


async def test_a_stripe_that_fails_says_so_as_often_as_it_was_told(shop: Shop) -> None:
    await shop.play("faults", status=500, times=1)

    with pytest.raises(stripe.APIError):
        await shop.session()

    assert (await shop.session()).status == "open"


async def test_a_wrong_api_key_is_refused(shop: Shop) -> None:
    with pytest.raises(stripe.AuthenticationError):
        await shop.client.v1.events.list_async({}, {"api_key": "sk_test_other"})


async def test_webhooks_are_signed_as_the_library_expects_and_come_until_they_are_taken(
    shop: Shop, taker: Taker, endpoint: Endpoint
) -> None:
    taker.statuses = [500, 503, 500]

    await shop.paid()

    async with asyncio.timeout(PATIENCE_S):
        attempts = [await taker.taken.get() for _ in range(6)]
    events = [stripe.Webhook.construct_event(body, signature, SECRET) for body, signature in attempts]
    assert sorted({event.type for event in events}) == sorted(await shop.events())
