"""The one card that an account has saved: what Stripe says of it now, whatever was told and in which order."""

import itertools
import random
from typing import Any

import asyncpg
import msgspec
import pytest

from simulated_stripe.objects import Object

from .conftest import CARD, Answer, Payer, Till


async def shown(till: Till, payer: Payer) -> Answer:
    return await till.call("GET", CARD, payer.secret)


async def last4(till: Till, payer: Payer) -> Any:
    """None: no card is saved."""
    answer = await shown(till, payer)
    return None if answer.status == 404 else answer.body["last4"]


async def entered(till: Till, payer: Payer, number: str = "4242424242424242", created: int = 0) -> Object:
    """A card of which we were not told yet; gives what Stripe has to tell. ``created``: so much later."""
    page = await till.call("POST", CARD, payer.secret)
    assert page.status == 201, page
    session = till.books.get(page.body["session_id"], "checkout.session")
    till.stripe.cards.wallets.complete_session(session, number=number)["created"] += created
    return till.events("checkout.session.completed")[-1]


async def test_a_card_that_was_entered_is_saved_and_shown(till: Till, payer: Payer) -> None:
    page = await till.call("POST", CARD, payer.secret)
    session = till.books.get(page.body["session_id"], "checkout.session")
    assert (session["mode"], session["url"]) == ("setup", page.body["checkout_url"])
    assert (await shown(till, payer)).code == "not_found"

    till.stripe.cards.wallets.complete_session(session, number="4242424242424242")
    for event in till.events():
        await till.tell(event)

    answer = await shown(till, payer)
    saved_at = till.clock.now.isoformat().replace("+00:00", "Z")
    expected = {"brand": "visa", "last4": "4242", "exp_month": 12, "exp_year": 2034, "saved_at": saved_at}
    assert (answer.status, answer.body) == (200, expected)
    assert {status for status, _ in await till.outcomes()} == {"processed", "ignored"}
    assert await till.credited(payer) == 0


async def test_an_account_is_one_customer_however_many_pages_it_asks_for(till: Till, payer: Payer) -> None:
    await entered(till, payer)
    till.stripe.forget_keys()
    await entered(till, payer)
    other = await till.payer()
    await entered(till, other)

    first, second, others = [session["customer"] for session in reversed(till.books.all_of("checkout.session"))]
    assert first == second != others


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_the_card_that_was_entered_last_stays_whatever_comes_first_and_how_often(
    till: Till, payer: Payer, order: tuple[int, ...]
) -> None:
    numbers = ("4242424242424242", "4000000000009995", "4000000000000341")
    events = [await entered(till, payer, number, created) for created, number in enumerate(numbers)]
    deliveries = [events[index] for index in order] + [random.Random(str(order)).choice(events)]

    for event in deliveries:
        await till.tell(event)

    assert await last4(till, payer) == "0341"


async def test_the_card_that_was_entered_last_stays_whichever_page_was_asked_for_first(
    till: Till, payer: Payer
) -> None:
    asked_for = [await till.call("POST", CARD, payer.secret)]
    till.clock.advance(minutes=1)
    asked_for.append(await till.call("POST", CARD, payer.secret))
    first, second = [till.books.get(page.body["session_id"], "checkout.session") for page in asked_for]

    for session, number in ((second, "4242424242424242"), (first, "4000000000009995")):
        till.clock.advance(minutes=1)
        till.stripe.cards.wallets.complete_session(session, number=number)
        await till.tell(till.events("checkout.session.completed")[-1])

    assert await last4(till, payer) == "9995"
    assert len(till.books.all_of("payment_method", customer=first["customer"])) == 1


async def test_a_card_that_is_replaced_is_saved_at_stripe_no_more(till: Till, payer: Payer) -> None:
    for created, number in enumerate(("4242424242424242", "4000000000009995")):
        await till.tell(await entered(till, payer, number, created))

    assert [bool(method["customer"]) for method in till.books.all_of("payment_method")] == [True, False]


async def test_a_card_that_is_replaced_may_have_been_taken_from_stripe_before(till: Till, payer: Payer) -> None:
    await till.tell(await entered(till, payer))
    till.stripe.cards.wallets.detach(till.books.all_of("payment_method")[0])

    await till.tell(await entered(till, payer, "4000000000009995", 1))

    assert await last4(till, payer) == "9995"
    assert (await till.outcomes())[-1][0] == "processed"


async def test_a_card_that_is_forgotten_is_forgotten_at_stripe_and_no_event_brings_it_back(
    till: Till, payer: Payer
) -> None:
    event = await entered(till, payer)
    await till.tell(event)

    answer = await till.call("DELETE", CARD, payer.secret)
    await till.tell({**event, "id": "evt_again"})

    assert answer.status == 204
    assert await last4(till, payer) is None
    assert [method["customer"] for method in till.books.all_of("payment_method")] == [None]
    assert (await till.call("DELETE", CARD, payer.secret)).status == 204
    row = dict(await till.ledger.pool.fetchrow("SELECT * FROM stripe_customers") or {})
    assert {name for name, value in row.items() if value is not None} == {"account_id", "customer_id"}


async def test_a_card_is_kept_as_long_as_stripe_cannot_be_told_to_forget_it(till: Till, payer: Payer) -> None:
    await till.tell(await entered(till, payer))
    till.stripe_fails(status=500)

    refused = await till.call("DELETE", CARD, payer.secret)

    assert (refused.status, refused.code) == (503, "payment_provider_unavailable")
    assert await last4(till, payer) == "4242"
    till.stripe_fails()
    assert (await till.call("DELETE", CARD, payer.secret)).status == 204
    assert await last4(till, payer) is None


async def test_forgetting_goes_on_when_the_answer_of_the_first_time_was_lost(till: Till, payer: Payer) -> None:
    await till.tell(await entered(till, payer))
    till.stripe_fails(lose_answer=True, path="/detach")
    assert (await till.call("DELETE", CARD, payer.secret)).status == 503
    till.stripe_fails()

    assert (await till.call("DELETE", CARD, payer.secret)).status == 204
    assert await last4(till, payer) is None


@pytest.mark.money_bug(49)
@pytest.mark.parametrize("wrong", ["account", "customer", "nobody"])
async def test_a_card_of_one_account_is_never_saved_for_another(till: Till, payer: Payer, wrong: str) -> None:
    other = await till.payer()
    await entered(till, other)
    event = msgspec.json.decode(msgspec.json.encode(await entered(till, payer)))
    match wrong:
        case "account":
            event["data"]["object"]["metadata"]["tollgate_account"] = other.account_id
        case "customer":
            event["data"]["object"]["customer"] = "cus_other"
        case _:
            event["data"]["object"]["metadata"]["tollgate_account"] = "acct_nobody"

    await till.tell(event)

    ((status, outcome),) = await till.outcomes()
    assert (status, outcome.split(":")[0]) == ("broken", "customer")
    assert [await last4(till, each) for each in (payer, other)] == [None, None]


async def test_a_page_on_which_no_card_was_entered_changes_nothing(till: Till, payer: Payer) -> None:
    page = await till.call("POST", CARD, payer.secret)
    till.books.expire_session(till.books.get(page.body["session_id"], "checkout.session"))

    await till.tell(till.events("checkout.session.expired")[0])

    ((status, _),) = await till.outcomes()
    assert status == "ignored"


async def test_a_key_with_limits_and_a_service_token_cannot_decide_with_which_card_to_pay(till: Till) -> None:
    limited = await till.payer(rate_limit_rpm=60)
    service = Payer("", await till.service_token("admin"))

    for payer in (limited, service):
        assert (await till.call("POST", CARD, payer.secret)).code == "forbidden"
        assert (await till.call("DELETE", CARD, payer.secret)).code == "forbidden"
    assert till.stripe.requests == []


async def test_without_secrets_nothing_of_cards_is_on(closed_till: Till) -> None:
    payer = await closed_till.payer()

    answers = [await closed_till.call(method, CARD, payer.secret) for method in ("POST", "GET", "DELETE")]

    assert {(answer.status, answer.code) for answer in answers} == {(503, "payments_not_configured")}


async def test_the_application_cannot_delete_what_it_knows_of_cards(pool: asyncpg.Pool) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await pool.execute("DELETE FROM stripe_customers")
