"""Money that goes back: what Stripe has taken in all is what the books take in all, whatever comes first."""

import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import asyncpg
import msgspec
import pytest

from payments.stripe.api import Dispute, Refund, StripeApi
from payments.stripe.balance import StripeBalance
from payments.stripe.booking import StripeBooking
from payments.stripe.card_api import CardApi
from payments.stripe.cards import Cards
from payments.stripe.collecting import CardCollector
from payments.stripe.payouts import PayoutBooking
from simulated_stripe.objects import Object

from .conftest import Payer, Till, trial_balance


async def tell_in_any_order(till: Till, seed: int, *types: str, copies: int = 3) -> None:
    deliveries = [event for event in till.events(*types) for _ in range(copies)]
    random.Random(seed).shuffle(deliveries)
    for event in deliveries:
        await till.tell(event)


@pytest.mark.money_bug(51)
@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
async def test_three_refunds_and_the_payment_in_any_order_leave_what_is_left(
    till: Till, payer: Payer, pool: asyncpg.Pool, order: tuple[int, ...]
) -> None:
    payment = await till.paid(payer, 1000)
    for cents in (100, 250, 400):
        till.refund(payment, cents)
    events = till.events("payment_intent.succeeded", "charge.refunded")

    for index in order:
        await till.tell(events[index])

    assert await till.credited(payer) == 250
    assert await trial_balance(pool) == 0
    (line,) = await till.history(payer)
    assert (line["status"], line["reversed_cents"], line["amount_cents"]) == ("partly_reversed", 750, 1000)


async def test_a_refund_of_all_of_it_reverses_the_top_up(till: Till, payer: Payer) -> None:
    payment = await till.paid(payer)
    till.refund(payment)

    await tell_in_any_order(till, 1)

    assert await till.status_of(payer) == "reversed"
    assert await till.credited(payer) == 0


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_a_refund_that_fails_days_later_gives_the_money_back_to_the_account(
    till: Till, payer: Payer, pool: asyncpg.Pool, order: tuple[int, ...]
) -> None:
    payment = await till.paid(payer)
    till.refund(payment, 100)
    failing = till.refund(payment, 300)
    told = till.events("charge.refunded")
    for event in told:
        await till.tell(event)
    assert await till.credited(payer) == 600

    till.books.fail_refund(failing)
    events = [*told, *till.events("refund.failed")]
    for index in order:
        await till.tell({**events[index], "id": f"evt_again_{index}"})

    assert await till.credited(payer) == 900
    assert await trial_balance(pool) == 0
    assert (await till.events_of(payer)).count("topup.reinstated") == 1


@pytest.mark.money_bug(51)
async def test_what_was_spent_before_it_was_refunded_is_debt(till: Till, payer: Payer) -> None:
    payment = await till.paid(payer)
    await till.tell(till.events("payment_intent.succeeded")[0])
    await till.spend(payer, 700)
    till.refund(payment, 500)

    await till.tell(till.events("charge.refunded")[0])

    account = await till.ledger.account(payer.account_id)
    assert account is not None
    assert account.debt == 200_000_000


@pytest.mark.parametrize(("status", "left"), [("won", 1000), ("lost", 600)])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.money_bug(51)
async def test_a_dispute_ends_as_the_bank_decides_in_whatever_order_it_is_told(
    till: Till, payer: Payer, pool: asyncpg.Pool, status: str, left: int, seed: int
) -> None:
    dispute = till.books.dispute(till.charge_of(await till.paid(payer)), 400)
    till.books.close_dispute(dispute, status)

    await tell_in_any_order(till, seed)

    assert await till.credited(payer) == left
    assert await trial_balance(pool) == 0


async def test_a_dispute_takes_the_money_when_it_begins_and_gives_it_back_when_it_is_won(
    till: Till, payer: Payer
) -> None:
    payment = await till.paid(payer)
    await till.tell(till.events("payment_intent.succeeded")[0])
    dispute = till.books.dispute(till.charge_of(payment), None)
    for event in till.events("charge.dispute.created", "charge.dispute.funds_withdrawn"):
        await till.tell(event)
    assert (await till.credited(payer), await till.status_of(payer)) == (0, "reversed")

    till.books.close_dispute(dispute, "won")
    for event in till.events("charge.dispute.funds_reinstated", "charge.dispute.created", "charge.dispute.closed"):
        await till.tell(event)

    assert (await till.credited(payer), await till.status_of(payer)) == (1000, "credited")
    events = await till.events_of(payer)
    assert (events.count("topup.reversed"), events.count("topup.reinstated")) == (1, 1)


@pytest.mark.parametrize("end", ["warning_closed", "prevented"])
async def test_a_dispute_that_never_took_money_takes_nothing(till: Till, payer: Payer, end: str) -> None:
    dispute = till.books.dispute(till.charge_of(await till.paid(payer)), None, inquiry=True)
    till.books.close_dispute(dispute, end)

    await tell_in_any_order(till, 1)

    assert await till.credited(payer) == 1000
    assert "topup.reversed" not in await till.events_of(payer)


async def test_a_refund_and_a_dispute_of_the_rest_take_all_and_no_more(till: Till, payer: Payer) -> None:
    payment = await till.paid(payer)
    till.refund(payment, 300)
    till.books.dispute(till.charge_of(payment), 700)

    await tell_in_any_order(till, 2)

    assert await till.credited(payer) == 0


@pytest.mark.parametrize("first", [0, 1])
async def test_a_dispute_of_more_than_is_left_takes_what_is_left_and_is_a_break(
    till: Till, payer: Payer, first: int
) -> None:
    payment = await till.paid(payer)
    till.refund(payment, 300)
    dispute = till.books.dispute(till.charge_of(payment), 1000)

    events = till.events("charge.refunded", "charge.dispute.created")
    for event in (events[first], events[1 - first], *events):
        await till.tell(event)

    assert {(status, outcome.split(":")[0]) for status, outcome in await till.outcomes()} == {("broken", "excess")}
    assert await till.credited(payer) == 0
    till.books.close_dispute(dispute, "won")
    for event in till.events("charge.dispute.closed", "charge.refunded"):
        await till.tell(event)
    assert await till.credited(payer) == 700
    assert await trial_balance(till.ledger.pool) == 0


async def test_refunds_and_disputes_in_another_currency_are_breaks(till: Till, payer: Payer) -> None:
    payment = await till.paid(payer)
    till.books.dispute(till.charge_of(payment), None)["currency"] = "eur"

    await till.tell(till.events("charge.dispute.created")[0])

    ((status, outcome),) = await till.outcomes()
    assert (status, outcome.split(":")[0]) == ("broken", "currency")
    assert await till.credited(payer) == 1000


async def test_what_happens_at_stripe_while_a_dispute_is_booked_is_booked_too(till: Till, payer: Payer) -> None:
    dispute = till.books.dispute(till.charge_of(await till.paid(payer)), None)
    listings = 0

    def won_after_the_first_look(path: str) -> None:
        nonlocal listings
        listings += path == "/v1/disputes"
        if listings == 1 and dispute["status"] != "won":
            till.books.close_dispute(dispute, "won")

    till.stripe.after_request = won_after_the_first_look

    await till.tell(till.events("charge.dispute.created")[0])

    assert listings == 3
    assert await till.credited(payer) == 1000
    assert (await till.events_of(payer))[-2:] == ["topup.reversed", "topup.reinstated"]


def without_payment(event: Object) -> Object:
    return {**event, "id": "evt_other", "data": {"object": {**event["data"]["object"], "payment_intent": None}}}


async def test_disputes_and_refunds_of_what_is_not_ours_are_ignored(till: Till, payer: Payer) -> None:
    payment = await till.paid(payer)
    payment["metadata"].clear()
    till.refund(payment, 100)
    till.books.dispute(till.charge_of(payment), 100)

    await till.tell(till.events("charge.dispute.created")[0])
    await till.tell(without_payment(till.events("charge.refunded")[0]))
    await till.tell({**without_payment(till.events("charge.dispute.created")[0]), "id": "evt_third"})

    assert await till.outcomes() == [("ignored", "not an order of ours")] * 3


async def test_a_refund_of_as_much_after_one_that_failed_is_booked(till: Till, payer: Payer) -> None:
    payment = await till.paid(payer)
    for _ in range(2):
        refund = till.refund(payment, 300)
        await till.tell(till.events("charge.refunded")[-1])
        assert await till.credited(payer) == 700
        till.books.fail_refund(refund)
        await till.tell(till.events("refund.failed")[-1])
        assert await till.credited(payer) == 1000


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_a_refund_that_failed_before_we_were_told_of_it_takes_nothing(
    till: Till, payer: Payer, order: tuple[int, ...]
) -> None:
    till.books.fail_refund(till.refund(await till.paid(payer), 300))
    events = till.events("payment_intent.succeeded", "charge.refunded", "refund.failed")

    for index in order:
        await till.tell(events[index])

    assert await till.credited(payer) == 1000


async def test_a_refund_after_a_dispute_was_won_is_booked_whichever_is_told_first(till: Till, payer: Payer) -> None:
    payment = await till.paid(payer)
    dispute = till.books.dispute(till.charge_of(payment), None)
    await till.tell(till.events("charge.dispute.created")[0])
    till.books.close_dispute(dispute, "won")
    till.charge_of(payment)["disputed"] = False
    till.refund(payment, 600)

    for event in till.events("charge.refunded", "charge.dispute.closed")[::-1]:
        await till.tell(event)

    assert {status for status, _ in await till.outcomes()} == {"processed"}
    assert await till.credited(payer) == 400


async def test_a_dispute_after_a_refund_failed_is_booked_whichever_is_told_first(till: Till, payer: Payer) -> None:
    payment = await till.paid(payer)
    refund = till.refund(payment, 300)
    await till.tell(till.events("charge.refunded")[0])
    till.books.fail_refund(refund)
    till.books.dispute(till.charge_of(payment), None)

    for event in till.events("refund.failed", "charge.dispute.created")[::-1]:
        await till.tell(event)

    assert {status for status, _ in await till.outcomes()} == {"processed"}
    assert await till.credited(payer) == 0


@pytest.mark.parametrize("told", ["charge.dispute.closed", "charge.dispute.funds_withdrawn"])
async def test_who_looked_before_a_dispute_was_won_and_books_after_another_did_sets_it_right(
    till: Till, payer: Payer, told: str
) -> None:
    dispute = till.books.dispute(till.charge_of(await till.paid(payer)), 400)
    await till.tell(till.events("charge.dispute.created")[0])
    dispute["status"] = "under_review"

    async with another_process(till) as (booking, api):
        look = api.disputes_of

        async def won_after_the_first_look(payment_id: str) -> list[Dispute]:
            seen = await look(payment_id)
            if dispute["status"] != "won":
                till.books.close_dispute(dispute, "won")
                await till.tell(till.events(told)[0])
            return seen

        api.disputes_of = won_after_the_first_look  # type: ignore[method-assign]
        await booking.book(msgspec.json.encode(till.events("charge.dispute.funds_withdrawn")[0]))

    assert await till.credited(payer) == 1000


async def test_who_looked_before_a_refund_was_made_and_books_after_another_did_sets_it_right(
    till: Till, payer: Payer
) -> None:
    payment = await till.paid(payer)
    refund = till.refund(payment, 300)
    await till.tell(till.events("charge.refunded")[0])
    till.books.fail_refund(refund)

    async with another_process(till) as (booking, api):
        look = api.refunds_of

        async def refunded_after_the_first_look(payment_id: str) -> list[Refund]:
            seen = await look(payment_id)
            if len(till.books.all_of("refund")) == 1:
                till.refund(payment, 200)
                await till.tell(till.events("charge.refunded")[-1])
            return seen

        api.refunds_of = refunded_after_the_first_look  # type: ignore[method-assign]
        await booking.book(msgspec.json.encode(till.events("refund.failed")[0]))

    assert await till.credited(payer) == 800


async def test_who_looked_before_a_dispute_was_won_and_a_refund_made_takes_the_refund_again(
    till: Till, payer: Payer
) -> None:
    payment = await till.paid(payer)
    dispute = till.books.dispute(till.charge_of(payment), None)
    await till.tell(till.events("charge.dispute.created")[0])

    async with another_process(till) as (booking, api):
        look = api.disputes_of

        async def refunded_after_the_first_look(payment_id: str) -> list[Dispute]:
            seen = await look(payment_id)
            if dispute["status"] != "won":
                till.books.close_dispute(dispute, "won")
                till.charge_of(payment)["disputed"] = False
                till.refund(payment, 600)
                await till.tell(till.events("charge.refunded")[0])
            return seen

        api.disputes_of = refunded_after_the_first_look  # type: ignore[method-assign]
        await booking.book(msgspec.json.encode(till.events("charge.dispute.funds_withdrawn")[0]))

    assert await till.credited(payer) == 400


@asynccontextmanager
async def another_process(till: Till) -> AsyncIterator[tuple[StripeBooking, StripeApi]]:
    async with aiohttp.ClientSession() as session:
        api = StripeApi(till.config, session)
        card_api = CardApi(till.config, session)
        cards = Cards(till.ledger, card_api, till.clock)
        collector = CardCollector(till.ledger, card_api, cards, till.clock)
        payouts = PayoutBooking(till.ledger, StripeBalance(till.config, session))
        yield StripeBooking(till.ledger, api, cards, collector, payouts), api
