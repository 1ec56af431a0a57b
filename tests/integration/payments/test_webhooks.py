"""What Stripe tells is believed when it is signed, stored before it is answered, and booked once."""

import asyncio
import random
from datetime import timedelta
from typing import Any

import asyncpg
import msgspec
import pytest
from prometheus_client import REGISTRY

from payments.notifications import FIRST_PAUSE
from payments.stripe.events import MAX_BODY
from simulated_stripe.objects import Object

from .conftest import FORMER_SECRET, WEBHOOK, Payer, Till, trial_balance

Result = tuple[int, str]


def counted(result: str) -> float:
    return REGISTRY.get_sample_value(
        "tollgate_payment_notifications_total", {"provider": "stripe", "result": result}
    ) or float(0)


def breaks(reason: str) -> float:
    return REGISTRY.get_sample_value(
        "tollgate_payment_breaks_total", {"provider": "stripe", "reason": reason}
    ) or float(0)


def changed(event: Object, **fields: Any) -> Object:
    """The event as it would be if its object had these fields, under an id of its own."""
    changed: Object = msgspec.json.decode(msgspec.json.encode(event))
    changed["id"] += "_changed"
    changed["data"]["object"].update(fields)
    return changed


async def credited_events(till: Till, payer: Payer) -> int:
    return (await till.events_of(payer)).count("topup.credited")


@pytest.mark.money_bug(50)
@pytest.mark.parametrize("seed", range(5))
async def test_one_payment_is_credited_once_whatever_tells_of_it_how_often_and_in_which_order(
    till: Till, payer: Payer, pool: asyncpg.Pool, seed: int
) -> None:
    await till.paid(payer, 1234)
    deliveries = [event for event in till.events() for _ in range(5)]
    random.Random(seed).shuffle(deliveries)

    answers = await asyncio.gather(*[till.tell(event) for event in deliveries])

    assert {answer.status for answer in answers} == {200}
    assert await till.credited(payer) == 1234
    assert await credited_events(till, payer) == 1
    assert await trial_balance(pool) == 0
    (line,) = await till.history(payer)
    assert (line["status"], line["reversed_cents"]) == ("credited", 0)
    assert sorted({outcome[0] for outcome in await till.outcomes()}) == ["ignored", "processed"]


async def test_what_was_told_is_kept_word_for_word_with_its_headers(till: Till, payer: Payer) -> None:
    await till.paid(payer)
    body = msgspec.json.format(msgspec.json.encode(till.events()[0]), indent=3)

    await till.tell(body)
    await till.tell(body)

    (row,) = await till.ledger.pool.fetch("SELECT body, headers, deliveries, event_type FROM payment_notifications")
    assert row["body"] == body
    assert (row["event_type"], row["deliveries"]) == ("charge.succeeded", 2)
    assert "Stripe-Signature" in dict(msgspec.json.decode(row["headers"], type=list[tuple[str, str]]))


async def test_a_webhook_signed_by_either_secret_of_a_rotation_is_taken(till: Till, payer: Payer) -> None:
    await till.paid(payer)

    answer = await till.tell(till.events("payment_intent.succeeded")[0], secret=FORMER_SECRET)

    assert answer.status == 200
    assert await till.credited(payer) == 1000


@pytest.mark.money_bug(48)
@pytest.mark.parametrize(
    ("secret", "age_s", "reason"), [("", 0, "forged"), ("whsec_2", 0, "forged"), (None, 301, "stale")]
)
async def test_what_is_not_from_stripe_or_too_old_is_refused_and_only_counted(
    till: Till, payer: Payer, secret: str | None, age_s: int, reason: str
) -> None:
    await till.paid(payer)
    before = counted(reason)
    event = till.events("payment_intent.succeeded")[0]

    answer = await (till.tell(event, age_s=age_s) if secret is None else till.tell(event, secret=secret))

    assert (answer.status, answer.code) == (400, "invalid_request")
    assert await till.outcomes() == []
    assert await till.credited(payer) == 0
    assert counted(reason) == before + 1


async def test_a_webhook_of_the_oldest_age_that_is_taken_is_taken(till: Till, payer: Payer) -> None:
    await till.paid(payer)

    assert (await till.tell(till.events()[0], age_s=300)).status == 200


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "unreadable"),
        (b"not json", "unreadable"),
        (b"[]", "unreadable"),
        (b'{"id": "evt_1"}', "unreadable"),
        (b'{"id": "evt\\u0000", "type": "x"}', "unreadable"),
        (b'{"id": "evt_1", "type": "x", "pad": "' + b"x" * MAX_BODY + b'"}', "too_large"),
    ],
    ids=["empty", "text", "list", "without type", "nul", "too large"],
)
async def test_what_is_signed_and_no_event_is_refused_and_only_counted(till: Till, body: bytes, reason: str) -> None:
    before = counted(reason)

    answer = await till.tell(body)

    assert (answer.status, answer.code) == (400, "invalid_request")
    assert await till.outcomes() == []
    assert counted(reason) == before + 1


async def test_an_event_that_nobody_knows_is_kept_and_ignored(till: Till) -> None:
    await till.tell(b'{"id": "evt_1", "type": "customer.created", "data": {"object": {}}}')

    assert await till.outcomes() == [("ignored", "customer.created moves no money of ours")]


async def test_a_payment_of_somebody_else_at_the_same_stripe_is_ignored(till: Till, payer: Payer) -> None:
    await till.paid(payer)
    event = changed(till.events("payment_intent.succeeded")[0], metadata={"shop_order": "17"})

    await till.tell(event)

    assert await till.outcomes() == [("ignored", "not an order of ours")]
    assert await till.credited(payer) == 0


@pytest.mark.money_bug(49)
@pytest.mark.parametrize(
    ("type_", "fields", "reason"),
    [
        ("payment_intent.succeeded", {"amount_received": 999}, "TopupMismatch"),
        ("payment_intent.succeeded", {"amount_received": 100_000}, "TopupMismatch"),
        ("payment_intent.succeeded", {"amount_received": 0}, "TopupMismatch"),
        ("payment_intent.succeeded", {"amount_received": -1000}, "unreadable"),
        ("payment_intent.succeeded", {"amount_received": 1000.5}, "unreadable"),
        ("payment_intent.succeeded", {"amount_received": "1000"}, "unreadable"),
        ("payment_intent.succeeded", {"currency": "jpy"}, "TopupMismatch"),
        ("payment_intent.succeeded", {"currency": ""}, "unreadable"),
        ("checkout.session.completed", {"amount_total": 1}, "TopupMismatch"),
        ("checkout.session.completed", {"currency": "eur"}, "TopupMismatch"),
        ("checkout.session.completed", {"id": "cs_other"}, "session"),
        ("checkout.session.completed", {"payment_intent": None}, "no_payment"),
        ("checkout.session.completed", {"amount_total": None}, "no_payment"),
        ("checkout.session.completed", {"payment_status": "no_payment_required", "payment_intent": None}, "not_paid"),
        ("checkout.session.completed", {"payment_status": "a word of tomorrow"}, "not_paid"),
    ],
)
async def test_what_was_paid_must_be_what_was_asked_for(
    till: Till, payer: Payer, type_: str, fields: dict[str, Any], reason: str
) -> None:
    await till.paid(payer)
    before = breaks(reason)

    answer = await till.tell(changed(till.events(type_)[0], **fields))

    assert answer.status == 200
    ((status, outcome),) = await till.outcomes()
    assert (status, outcome.split(":")[0]) == ("broken", reason)
    assert breaks(reason) == before + 1
    assert await till.credited(payer) == 0
    assert await credited_events(till, payer) == 0


@pytest.mark.parametrize(
    ("type_", "field"), [("checkout.session.completed", "payment_status"), ("charge.dispute.created", "status")]
)
async def test_a_word_that_cannot_be_stored_is_written_out(till: Till, payer: Payer, type_: str, field: str) -> None:
    till.books.dispute(till.charge_of(await till.paid(payer)), 100)

    await till.tell(changed(till.events(type_)[0], **{field: "pa\0id"}))

    ((status, outcome),) = await till.outcomes()
    assert status in ("broken", "processed")
    assert outcome


@pytest.mark.money_bug(49)
@pytest.mark.parametrize("wrong", ["account", "topup", "half"])
async def test_metadata_alone_is_never_believed(till: Till, payer: Payer, wrong: str) -> None:
    payment = await till.paid(payer)
    other = await till.payer()
    metadata = dict(payment["metadata"])
    match wrong:
        case "account":
            metadata["tollgate_account"] = other.account_id
        case "topup":
            metadata["tollgate_topup"] = "topup_1"
        case _:
            del metadata["tollgate_account"]

    await till.tell(changed(till.events("payment_intent.succeeded")[0], metadata=metadata))

    ((status, outcome),) = await till.outcomes()
    assert (status, outcome.split(":")[0]) == ("broken", "unknown")
    assert (await till.credited(payer), await till.credited(other)) == (0, 0)


async def test_a_payment_is_never_credited_to_a_second_top_up_nor_a_top_up_by_a_second_payment(
    till: Till, payer: Payer
) -> None:
    payment = await till.paid(payer)
    second = await till.ordered(payer)
    succeeded = till.events("payment_intent.succeeded")[0]
    await till.tell(succeeded)

    await till.tell(changed(succeeded, id="pi_another"))
    await till.tell({**changed(succeeded, metadata=second["metadata"]), "id": "evt_of_second"})

    assert [status for status, _ in await till.outcomes()] == ["processed", "broken", "broken"]
    assert await till.credited(payer) == 1000
    assert payment["id"] == (await till.history(payer))[1]["reference_id"]


async def test_a_payment_that_takes_days_is_credited_when_it_is_there(till: Till, payer: Payer) -> None:
    session = await till.ordered(payer)
    till.pay(session, later=True)
    await till.tell(till.events("checkout.session.completed")[0])
    assert await till.credited(payer) == 0

    till.books.settle_session(session, succeeds=True)
    await till.tell(till.events("checkout.session.async_payment_succeeded")[0])

    assert await till.credited(payer) == 1000


async def test_a_payment_that_fails_after_days_ends_the_top_up(till: Till, payer: Payer) -> None:
    session = await till.ordered(payer)
    till.pay(session, later=True)
    till.books.settle_session(session, succeeds=False)

    for event in till.events() * 2:
        await till.tell(event)

    assert await till.status_of(payer) == "failed"
    assert (await till.events_of(payer)).count("topup.failed") == 1


async def test_a_page_that_nobody_paid_at_expires_and_money_that_comes_after_is_credited(
    till: Till, payer: Payer
) -> None:
    session = await till.ordered(payer)
    till.books.expire_session(session)
    await till.tell(till.events("checkout.session.expired")[0])
    assert await till.status_of(payer) == "expired"

    session["status"] = "open"
    till.pay(session)
    for event in till.events("payment_intent.succeeded", "checkout.session.expired"):
        await till.tell(event)

    assert await till.status_of(payer) == "credited"
    assert await till.credited(payer) == 1000
    assert await till.events_of(payer) == ["topup.requested", "topup.pending", "topup.expired", "topup.credited"]


async def test_a_page_that_expires_after_it_was_paid_changes_nothing(till: Till, payer: Payer) -> None:
    await till.paid(payer)
    await till.tell(till.events("payment_intent.succeeded")[0])

    await till.tell(changed(till.events("checkout.session.completed")[0]) | {"type": "checkout.session.expired"})

    assert await till.status_of(payer) == "credited"


async def test_the_session_of_a_process_that_died_before_noting_it_is_credited(till: Till, payer: Payer) -> None:
    # The order was committed and made, and then nothing more.
    till.stripe_fails(lose_answer=True)
    assert (await till.checkout(payer)).status == 503
    till.stripe_fails()
    (session,) = till.books.all_of("checkout.session")

    till.pay(session)
    await till.tell(till.events("checkout.session.completed")[0])

    assert await till.events_of(payer) == ["topup.requested", "topup.credited"]
    assert await till.credited(payer) == 1000


async def test_what_was_not_processed_is_processed_later_and_once(till: Till, payer: Payer) -> None:
    payment = await till.paid(payer)
    till.books.dispute(till.charge_of(payment), None)
    till.stripe_fails(status=500)
    await till.tell(till.events("charge.dispute.created")[0])
    ((status, outcome),) = await till.outcomes()
    assert status == "received"
    assert "does not answer" in outcome

    till.stripe_fails()
    assert await till.road.inbox.process_waiting() == 0  # it is not due yet
    till.clock.now += FIRST_PAUSE

    assert await till.road.inbox.process_waiting() == 1
    assert await till.road.inbox.process_waiting() == 0
    assert [status for status, _ in await till.outcomes()] == ["processed"]
    assert await till.credited(payer) == 0
    assert await till.events_of(payer) == ["topup.requested", "topup.pending", "topup.credited", "topup.reversed"]


async def test_who_is_tried_again_waits_longer_each_time(till: Till, payer: Payer) -> None:
    payment = await till.paid(payer)
    till.books.dispute(till.charge_of(payment), None)
    till.stripe_fails(status=500)
    await till.tell(till.events("charge.dispute.created")[0])

    pauses = []
    for _ in range(12):
        due = await till.ledger.pool.fetchval("SELECT next_try_at FROM payment_notifications")
        pauses.append((due - till.clock.now).total_seconds())
        till.clock.now = due
        assert await till.road.inbox.process_waiting() == 1

    assert pauses[:5] == [10, 10, 20, 40, 80]
    assert pauses[-1] == timedelta(hours=1).total_seconds()


async def test_what_stripe_says_of_a_failure_is_noted_even_if_it_cannot_be_stored(till: Till, payer: Payer) -> None:
    till.books.dispute(till.charge_of(await till.paid(payer)), None)
    till.stripe_fails(status=500, message="no\0")

    await till.tell(till.events("charge.dispute.created")[0])

    ((status, outcome),) = await till.outcomes()
    assert (status, "no\\x00" in outcome) == ("received", True)


async def test_a_failed_event_that_comes_again_is_processed_again(till: Till, payer: Payer) -> None:
    payment = await till.paid(payer)
    till.books.dispute(till.charge_of(payment), None)
    (event,) = till.events("charge.dispute.created")
    till.stripe_fails(status=500)
    await till.tell(event)
    till.stripe_fails()

    await till.tell(event)

    assert [status for status, _ in await till.outcomes()] == ["processed"]


async def test_when_postgres_is_away_stripe_is_told_to_come_again(till: Till) -> None:
    body = b'{"id": "evt_1", "type": "customer.created"}'
    await till.ledger.pool.close()

    answer = await till.call("POST", WEBHOOK, body=body, Stripe_Signature=till.signed(body))

    assert (answer.status, answer.code) == (503, "ledger_unavailable")
