"""Notifications processed again: by the command, after a crash, by several at once."""

import asyncio
from datetime import timedelta

import asyncpg
import msgspec

from payments import NotificationsAsked, NotificationStore
from payments.notifications import BATCH, FIRST_PAUSE

from .conftest import Payer, Till


async def store(till: Till, event: object) -> None:
    """As a process does that is killed right after."""
    body = msgspec.json.encode(event)
    head = msgspec.json.decode(body)
    await NotificationStore(till.ledger.pool).store(
        "stripe", event_id=head["id"], event_type=head["type"], headers=[], body=body, now=till.clock.now
    )


async def replay(till: Till, **asked: object) -> list[str]:
    """The types of what was replayed."""
    return [each.event_type async for each in till.road.inbox.replay(NotificationsAsked(**asked))]  # type: ignore[arg-type]


async def test_what_a_dead_process_stored_is_processed_by_another(till: Till, payer: Payer) -> None:
    await till.paid(payer)
    for event in till.events():
        await store(till, event)
    till.clock.now += FIRST_PAUSE

    counts = await asyncio.gather(*[till.road.inbox.process_waiting() for _ in range(3)])

    assert sum(counts) == 3
    assert await till.credited(payer) == 1000


async def test_who_takes_notifications_keeps_nobody_waiting_and_nobody_gets_them_too(
    till: Till, payer: Payer, pool: asyncpg.Pool
) -> None:
    await till.paid(payer)
    for event in till.events():
        await store(till, event)
    due = till.clock.now + FIRST_PAUSE

    async with pool.acquire() as connection, connection.transaction():
        taken = await NotificationStore(connection).take_waiting(due)  # type: ignore[arg-type]
        async with asyncio.timeout(10):
            taken_meanwhile = await NotificationStore(pool).take_waiting(due)

    assert len(taken) == 3
    assert taken_meanwhile == []
    assert await NotificationStore(pool).take_waiting(due) == []


async def test_a_replay_of_everything_changes_nothing(till: Till, payer: Payer, pool: asyncpg.Pool) -> None:
    payment = await till.paid(payer)
    till.refund(payment, 300)
    for event in till.events():
        await till.tell(event)
    before = (await till.events_of(payer), await till.outcomes())

    replayed = await replay(till)

    assert len(replayed) == len(till.events())
    assert (await till.events_of(payer), await till.outcomes()) == before


async def test_a_break_whose_reason_is_gone_is_booked_by_a_replay(till: Till, payer: Payer) -> None:
    await till.paid(payer)
    (event,) = till.events("payment_intent.succeeded")
    # The column is not ours to change; the test plays a database that was restored to before the request.
    await till.tell(event)
    assert await till.credited(payer) == 1000
    await till.ledger.pool.execute("UPDATE payment_notifications SET status = 'broken', outcome = 'unknown: …'")

    assert await replay(till, status="broken") == ["payment_intent.succeeded"]

    assert [status for status, _ in await till.outcomes()] == ["processed"]
    assert await till.credited(payer) == 1000


async def test_a_replay_takes_what_was_asked_for(till: Till, payer: Payer) -> None:
    await till.paid(payer)
    start = till.clock.now
    for event in till.events():
        await till.tell(event)
        till.clock.advance(hours=1)

    assert await replay(till) == [event["type"] for event in till.events()]
    assert await replay(till, start=start + timedelta(hours=1)) == [event["type"] for event in till.events()[1:]]
    assert await replay(till, until=start + timedelta(hours=1)) == [till.events()[0]["type"]]
    assert await replay(till, id=till.events()[1]["id"]) == [till.events()[1]["type"]]
    assert await replay(till, provider="stripe", status="ignored") == ["charge.succeeded"]
    assert await replay(till, provider="usdc") == []


async def test_more_than_a_page_of_notifications_is_listed_whole_and_in_order(till: Till) -> None:
    count = 2 * BATCH + 1
    for number in range(count):
        await store(till, {"id": f"evt_{number:04}", "type": "customer.created"})

    listed = [each async for each in NotificationStore(till.ledger.pool).asked(NotificationsAsked())]

    assert sorted(each.event_id for each in listed) == [f"evt_{number:04}" for number in range(count)]
    assert [each.id for each in listed] == sorted(each.id for each in listed)


async def test_what_cannot_be_replayed_because_stripe_is_away_is_due_again(till: Till, payer: Payer) -> None:
    till.books.dispute(till.charge_of(await till.paid(payer)), 400)
    told = till.events("charge.dispute.created")[0]
    await till.tell(told)
    till.stripe_fails(status=500)

    replayed = [each.status async for each in till.road.inbox.replay(NotificationsAsked(id=told["id"]))]

    assert replayed == ["received"]
    till.stripe_fails()
    till.clock.now += FIRST_PAUSE
    assert await till.road.inbox.process_waiting() == 1
    assert [status for status, _ in await till.outcomes()] == ["processed"]
