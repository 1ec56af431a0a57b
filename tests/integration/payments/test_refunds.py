"""Refunds from our side: what was paid and is not spent, once."""

import asyncio
from decimal import Decimal

import pytest

from ledger import GrantCredit, Microcents, microcents_from_cents
from payments import NotRefundable, ProviderUnavailable, TopupNotFound, open_stripe

from .conftest import Payer, Till


async def topped_up(till: Till, payer: Payer, cents: int = 1000) -> str:
    await till.paid(payer, cents)
    await till.tell(till.events("payment_intent.succeeded")[-1])
    return str((await till.history(payer))[0]["id"])


async def refund(till: Till, topup_id: str, cents: int | str | None = None, key: str | None = None) -> Decimal:
    """Gives what was given back, in cents."""
    amount: Microcents | None = None if cents is None else microcents_from_cents(Decimal(cents))
    _, given_back = await till.road.refunds.refund(topup_id, amount=amount, reason="by mail", idempotency_key=key)
    return Decimal(given_back).scaleb(-6)


async def test_a_refund_is_booked_from_its_answer_and_its_webhook_adds_nothing(till: Till, payer: Payer) -> None:
    topup_id = await topped_up(till, payer)

    assert await refund(till, topup_id, 300) == 300
    assert await till.credited(payer) == 700
    await till.tell(till.events("charge.refunded")[0])

    assert await till.credited(payer) == 700
    assert (await till.events_of(payer)).count("topup.reversed") == 1
    assert [each["amount"] for each in till.books.all_of("refund")] == [300]


async def test_parts_add_up_and_without_an_amount_it_is_the_rest(till: Till, payer: Payer) -> None:
    topup_id = await topped_up(till, payer)

    assert [await refund(till, topup_id, 300), await refund(till, topup_id, 200), await refund(till, topup_id)] == [
        300,
        200,
        500,
    ]
    with pytest.raises(NotRefundable):
        await refund(till, topup_id, key="another")
    assert await till.status_of(payer) == "reversed"


async def test_credit_that_nobody_paid_for_is_not_given_back(till: Till, payer: Payer) -> None:
    topup_id = await topped_up(till, payer)
    await till.spend(payer, 600)
    grant = GrantCredit(
        stream_id=payer.account_id,
        amount_microcents=microcents_from_cents(500),
        reason="welcome",
        granted_by="user_1",
        idempotency_key="g",
    )
    await till.ledger.submit(grant)

    with pytest.raises(NotRefundable):
        await refund(till, topup_id, 401)

    assert await refund(till, topup_id) == 400


@pytest.mark.money_bug(24)
async def test_only_what_is_not_spent_is_given_back(till: Till, payer: Payer) -> None:
    topup_id = await topped_up(till, payer)
    await till.spend(payer, 600)

    with pytest.raises(NotRefundable):
        await refund(till, topup_id, 401)
    assert till.books.all_of("refund") == []

    assert await refund(till, topup_id) == 400


@pytest.mark.money_bug(24)
async def test_refunds_at_once_give_back_no_more_than_is_left_together(till: Till, payer: Payer) -> None:
    first, second = await topped_up(till, payer), await topped_up(till, payer)
    await till.spend(payer, 1000)

    async with open_stripe(till.config, till.ledger, till.clock) as elsewhere:
        outcomes = await asyncio.gather(
            till.road.refunds.refund(first, amount=None, reason="by mail", idempotency_key=None),
            elsewhere.refunds.refund(second, amount=None, reason="by mail", idempotency_key=None),
            return_exceptions=True,
        )

    assert [type(outcome) for outcome in outcomes].count(NotRefundable) == 1
    assert [each["amount"] for each in till.books.all_of("refund")] == [1000]


async def test_what_is_given_back_is_never_more_than_was_paid_whatever_else_is_on_the_account(
    till: Till, payer: Payer
) -> None:
    first = await topped_up(till, payer)
    await topped_up(till, payer)

    with pytest.raises(NotRefundable):
        await refund(till, first, 1001)

    assert await refund(till, first) == 1000


@pytest.mark.parametrize("cents", ["0", "-100"])
async def test_a_refund_is_above_zero(till: Till, payer: Payer, cents: str) -> None:
    topup_id = await topped_up(till, payer)

    with pytest.raises(NotRefundable):
        await refund(till, topup_id, cents)


async def test_what_was_not_paid_or_is_not_there_cannot_be_refunded(till: Till, payer: Payer) -> None:
    await till.ordered(payer)
    (line,) = await till.history(payer)

    with pytest.raises(NotRefundable):
        await refund(till, line["id"])
    with pytest.raises(TopupNotFound):
        await refund(till, "topup_1")


@pytest.mark.parametrize("is_told", [False, True])
@pytest.mark.parametrize("cents", [300, None])
@pytest.mark.parametrize("key", [None, "k"])
async def test_a_refund_whose_answer_was_lost_is_found_again_by_the_same_command(
    till: Till, payer: Payer, key: str | None, cents: int | None, is_told: bool
) -> None:
    topup_id = await topped_up(till, payer)
    await till.spend(payer, 700)
    till.stripe.after_request = lambda path: till.stripe_fails(status=500 if till.books.all_of("refund") else None)
    with pytest.raises(ProviderUnavailable):
        await refund(till, topup_id, cents, key)
    till.stripe.after_request = lambda path: None
    till.stripe_fails()
    till.stripe.forget_keys()
    if is_told:
        await till.tell(till.events("charge.refunded")[0])

    assert await refund(till, topup_id, cents, key) == 300

    assert [each["amount"] for each in till.books.all_of("refund")] == [300]
    assert await till.credited(payer) == 0


async def test_a_refund_that_failed_is_said_to_have_failed_and_another_one_can_be_made(
    till: Till, payer: Payer
) -> None:
    topup_id = await topped_up(till, payer)
    await refund(till, topup_id, 300)
    till.books.fail_refund(till.books.all_of("refund")[0])

    with pytest.raises(NotRefundable, match="is failed"):
        await refund(till, topup_id, 300)
    assert await till.credited(payer) == 1000

    assert await refund(till, topup_id, 300, "another") == 300
    assert await till.credited(payer) == 700


async def test_the_same_key_with_another_amount_is_refused(till: Till, payer: Payer) -> None:
    topup_id = await topped_up(till, payer)
    await refund(till, topup_id, 300, "k")

    with pytest.raises(NotRefundable):
        await refund(till, topup_id, 400, "k")

    assert await till.credited(payer) == 700


async def test_the_same_key_gives_nothing_back_a_second_time(till: Till, payer: Payer) -> None:
    topup_id = await topped_up(till, payer)

    assert [await refund(till, topup_id, 600, "k"), await refund(till, topup_id, 600, "k")] == [600, 600]

    assert [each["amount"] for each in till.books.all_of("refund")] == [600]
    assert await till.credited(payer) == 400
