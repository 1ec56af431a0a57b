"""From the customer's wish to Stripe's page: one order for one wish, whatever is lost on the way."""

import asyncio
from decimal import Decimal

import pytest

from .conftest import Payer, Till


async def test_stripe_is_asked_for_exactly_what_the_customer_asked_for(till: Till, payer: Payer) -> None:
    answer = await till.checkout(payer, 2550)

    session = till.books.get(answer.body["session_id"], "checkout.session")
    assert (session["amount_total"], session["currency"], session["mode"]) == (2550, "usd", "payment")
    assert answer.body["checkout_url"] == session["url"]
    assert session["client_reference_id"] == answer.body["topup_id"]
    (line,) = await till.history(payer)
    assert (line["status"], line["amount_cents"], line["source"]) == ("pending", 2550, "stripe")
    assert line["reference_id"] == session["id"]
    assert await till.credited(payer) == 0
    assert await till.events_of(payer) == ["topup.requested", "topup.pending"]


@pytest.mark.parametrize(("currency", "cents", "units"), [("JPY", 50_000, 500), ("EUR", 505, 505), ("KWD", 501, 5010)])
async def test_amounts_are_asked_for_in_the_smallest_unit_of_their_currency(
    till: Till, currency: str, cents: int, units: int
) -> None:
    payer = await till.payer(currency)

    session = await till.ordered(payer, cents)
    till.pay(session)
    await till.tell(till.events("checkout.session.completed")[0])

    assert (session["amount_total"], session["currency"]) == (units, currency.lower())
    assert await till.credited(payer) == cents


@pytest.mark.parametrize("cents", [499, 100_001, 0, -500, 10**30, Decimal("500.5"), Decimal("1000.0000001")])
async def test_an_amount_that_cannot_be_topped_up_by_is_refused_before_anything_is_written(
    till: Till, payer: Payer, cents: Decimal
) -> None:
    answer = await till.checkout(payer, str(cents))

    assert (answer.status, answer.code, answer.body["error"]["param"]) == (400, "invalid_request", "amount_cents")
    assert await till.history(payer) == []
    assert till.stripe.requests == []


async def test_the_same_idempotency_key_is_the_same_page(till: Till, payer: Payer) -> None:
    first = await till.checkout(payer, 1000, Idempotency_Key="k")

    again = await till.checkout(payer, 1000, Idempotency_Key="k")
    other_amount = await till.checkout(payer, 2000, Idempotency_Key="k")
    other_account = await till.checkout(await till.payer(), 1000, Idempotency_Key="k")

    assert (again.status, again.body) == (201, first.body)
    assert (other_amount.status, other_amount.code) == (409, "idempotency_mismatch")
    assert other_account.body["topup_id"] != first.body["topup_id"]
    assert len(await till.history(payer)) == 1


async def test_many_at_once_with_the_same_key_make_one_order(till: Till, payer: Payer) -> None:
    answers = await asyncio.gather(*[till.checkout(payer, 1000, Idempotency_Key="k") for _ in range(8)])

    assert {answer.status for answer in answers} == {201}
    assert len({answer.body["session_id"] for answer in answers}) == 1
    assert await till.events_of(payer) == ["topup.requested", "topup.pending"]


async def test_the_page_of_a_key_is_the_same_when_stripe_has_forgotten_its_own_key(till: Till, payer: Payer) -> None:
    first = await till.checkout(payer, 1000, Idempotency_Key="k")
    till.stripe.forget_keys()

    assert (await till.checkout(payer, 1000, Idempotency_Key="k")).body == first.body


async def test_a_key_whose_top_up_is_paid_or_over_is_refused(till: Till, payer: Payer) -> None:
    for how in ("paid", "expired"):
        answer = await till.checkout(payer, 1000, Idempotency_Key=how)
        session = till.books.get(answer.body["session_id"], "checkout.session")
        if how == "paid":
            till.pay(session)
        else:
            till.books.expire_session(session)

        again = await till.checkout(payer, 1000, Idempotency_Key=how)

        assert (again.status, again.code) == (409, "conflict")


async def test_an_answer_that_is_lost_on_its_way_makes_no_second_order(till: Till, payer: Payer) -> None:
    till.stripe_fails(lose_answer=True, times=1)

    answer = await till.checkout(payer)

    assert answer.status == 201
    assert [session["id"] for session in till.books.all_of("checkout.session")] == [answer.body["session_id"]]


async def test_when_stripe_is_away_the_same_key_goes_on_later(till: Till, payer: Payer) -> None:
    till.stripe_fails(status=500)
    refused = await till.checkout(payer, 1000, Idempotency_Key="k")
    till.stripe_fails()

    answer = await till.checkout(payer, 1000, Idempotency_Key="k")

    assert (refused.status, refused.code) == (503, "payment_provider_unavailable")
    assert refused.headers["x-should-retry"] == "true"
    assert answer.status == 201
    assert await till.events_of(payer) == ["topup.requested", "topup.pending"]


async def test_a_stripe_that_takes_too_long_is_away(till: Till, payer: Payer) -> None:
    till.stripe_fails(hang_s=30)
    refused = await till.checkout(payer, 1000, Idempotency_Key="k")
    till.stripe_fails()

    assert (refused.status, refused.code) == (503, "payment_provider_unavailable")
    assert (await till.checkout(payer, 1000, Idempotency_Key="k")).status == 201


async def test_what_stripe_refuses_fails_and_says_nothing_of_why_to_strangers(till: Till, payer: Payer) -> None:
    till.stripe_fails(status=402)

    answer = await till.checkout(payer)

    assert (answer.status, answer.code) == (502, "payment_provider_error")
    assert "asked for" not in answer.body["error"]["message"]
    assert await till.events_of(payer) == ["topup.requested", "topup.failed"]


@pytest.mark.parametrize("status", [401, 403])
async def test_with_a_key_that_stripe_does_not_accept_a_top_up_waits_until_it_is_mended(
    till: Till, payer: Payer, status: int
) -> None:
    till.stripe_fails(status=status)
    refused = await till.checkout(payer, 1000, Idempotency_Key="k")
    assert await till.events_of(payer) == ["topup.requested"]
    till.stripe_fails()

    answer = await till.checkout(payer, 1000, Idempotency_Key="k")

    assert (refused.status, refused.code) == (502, "payment_provider_error")
    assert answer.status == 201
    assert await till.events_of(payer) == ["topup.requested", "topup.pending"]


async def test_without_secrets_every_route_of_stripe_is_off(closed_till: Till) -> None:
    payer = await closed_till.payer()

    checkout = await closed_till.checkout(payer)
    webhook = await closed_till.call(
        "POST", "/v1/topup/stripe/webhook", body=b"{}", Stripe_Signature=closed_till.signed(b"{}", "")
    )

    assert (checkout.status, checkout.code) == (503, "payments_not_configured")
    assert (webhook.status, webhook.code) == (503, "payments_not_configured")
    assert await closed_till.history(payer) == []


async def test_a_service_token_tops_nothing_up_and_a_stranger_neither(till: Till) -> None:
    payer = Payer("", await till.service_token("admin"))

    assert (await till.checkout(payer)).status == 403
    assert (await till.checkout(Payer("", "tg_wrong"))).status == 401
