"""Saved cards at the simulated Stripe, as Stripe's own library sees them."""

import pytest
import stripe

from .conftest import Shop


async def saved(shop: Shop, number: str = "4242424242424242") -> stripe.PaymentMethod:
    customer = await shop.client.v1.customers.create_async({})
    session = await shop.client.v1.checkout.sessions.create_async(
        {
            "mode": "setup",
            "customer": customer.id,
            "payment_method_types": ["card"],
            "success_url": "https://shop.example/thanks",
        }
    )
    method = await shop.play(f"sessions/{session.id}/complete", number=number)
    return await shop.client.v1.payment_methods.retrieve_async(method["id"])


async def paid(shop: Shop, method: stripe.PaymentMethod, key: str = "k", cents: int = 1000) -> stripe.PaymentIntent:
    return await shop.client.v1.payment_intents.create_async(
        {
            "amount": cents,
            "currency": "usd",
            "customer": str(method.customer),
            "payment_method": method.id,
            "off_session": True,
            "confirm": True,
        },
        {"idempotency_key": key},
    )


async def test_a_saved_card_pays_once_for_one_key(shop: Shop) -> None:
    method = await saved(shop)

    first, again = await paid(shop, method), await paid(shop, method)

    assert (first.id, first.status, first.amount_received) == (again.id, "succeeded", 1000)
    listed = await shop.client.v1.payment_intents.list_async({"customer": str(method.customer)})
    assert [intent.id for intent in listed.data] == [first.id]
    assert "payment_intent.succeeded" in await shop.events()
    with pytest.raises(stripe.IdempotencyError):
        await paid(shop, method, cents=2000)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        ("4000000000000341", "card_declined"),
        ("4000000000009995", "card_declined"),
        ("4000002760003184", "authentication_required"),
    ],
)
async def test_a_card_that_is_declined_says_why_and_leaves_a_payment_that_can_be_canceled(
    shop: Shop, number: str, code: str
) -> None:
    method = await saved(shop, number)

    with pytest.raises(stripe.CardError) as declined:
        await paid(shop, method)

    assert (declined.value.http_status, declined.value.code) == (402, code)
    (intent,) = (await shop.client.v1.payment_intents.list_async({"customer": str(method.customer)})).data
    assert (intent.status, intent.amount_received) == ("requires_payment_method", 0)
    assert intent.last_payment_error is not None
    assert intent.last_payment_error.code == code
    canceled = await shop.client.v1.payment_intents.cancel_async(intent.id)
    assert canceled.status == "canceled"
    with pytest.raises(stripe.InvalidRequestError):
        await shop.client.v1.payment_intents.confirm_async(intent.id, {"payment_method": method.id})


async def test_a_card_that_is_detached_pays_no_more_and_is_listed_no_more(shop: Shop) -> None:
    method = await saved(shop)
    customer = str(method.customer)

    await shop.client.v1.payment_methods.detach_async(method.id)

    assert (await shop.client.v1.payment_methods.list_async({"customer": customer})).data == []
    with pytest.raises(stripe.InvalidRequestError):
        await paid(shop, method)
    with pytest.raises(stripe.InvalidRequestError):
        await shop.client.v1.payment_methods.detach_async(method.id)


@pytest.mark.parametrize(("succeeds", "status"), [(True, "succeeded"), (False, "requires_payment_method")])
async def test_a_payment_that_takes_days_ends_later(shop: Shop, succeeds: bool, status: str) -> None:
    method = await saved(shop)
    await shop.play(f"payment_methods/{method.id}/outcome", outcome="processing")
    intent = await paid(shop, method)
    assert intent.status == "processing"

    await shop.play(f"payment_intents/{intent.id}/settle", succeeds=succeeds)

    assert (await shop.client.v1.payment_intents.retrieve_async(intent.id)).status == status
