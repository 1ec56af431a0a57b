"""Tests that an account asks for, notices that it wants once more, what it sees of them, and how long."""

from datetime import timedelta

import asyncpg
from prometheus_client import REGISTRY

from notices import KEPT_FOR, Outbox
from notices.schedule import PAUSES

from .conftest import ENDPOINTS, Customer, Office
from .receiver import Receiver
from .test_deliveries import pay


async def test_a_test_is_sent_once_whatever_comes_of_it(office: Office, customer: Customer, receiver: Receiver) -> None:
    endpoint = await office.add(customer, receiver.url, events=["balance.low"])
    path = f"{ENDPOINTS}/{endpoint['id']}/test"
    receiver.behaviours = [204, 500]

    ids = []
    for _ in range(2):
        answer = await office.call("POST", path, customer.secret)
        ids.append((answer.status, answer.body["notice_id"]))
        await office.work()
        office.clock.advance(seconds=1)
    office.clock.advance(days=1)
    await office.work()

    assert ids == [(202, told.id) for told in receiver.told]
    for told in receiver.told:
        assert told.verified_by(endpoint["secret"])
        assert told.json["type"] == "webhook.test"
        assert told.json["data"] == {"account_id": customer.account_id, "endpoint_id": endpoint["id"]}
    lines = await office.deliveries(customer, endpoint)
    assert [(line["status"], line["error"]) for line in lines] == [("failed", "answered 500"), ("delivered", None)]


async def test_a_notice_is_sent_again_under_its_id_whatever_became_of_it(
    office: Office, customer: Customer, receiver: Receiver
) -> None:
    endpoint = await office.add(customer, receiver.url)
    await pay(office, customer)
    receiver.behaviours = [204, 500, 204]
    await office.work()
    path = f"{ENDPOINTS}/{endpoint['id']}/notices/{receiver.told[0].id}/resend"

    answer = await office.call("POST", path, customer.secret)
    await office.work()
    office.clock.now += PAUSES[0] * 1.2
    await office.work()

    assert (answer.status, answer.body) == (202, {"notice_id": receiver.told[0].id})
    assert len(receiver.told) == 3
    assert len({(told.id, told.body) for told in receiver.told}) == 1
    assert [line["status_code"] for line in await office.deliveries(customer, endpoint)] == [204, 500, 204]


async def test_a_notice_that_was_given_up_has_the_whole_schedule_again(
    office: Office, customer: Customer, receiver: Receiver
) -> None:
    endpoint = await office.add(customer, receiver.url)
    await pay(office, customer)
    receiver.behaviours = [500] * 12
    for pause in (timedelta(0), *PAUSES):
        office.clock.now += pause * 1.2
        await office.work()
    given_up = (await office.deliveries(customer, endpoint))[0]

    await office.call("POST", f"{ENDPOINTS}/{endpoint['id']}/notices/{given_up['notice_id']}/resend", customer.secret)
    await office.work()
    office.clock.now += PAUSES[0] * 1.2
    await office.work()
    office.clock.now += PAUSES[1] * 1.2
    await office.work()

    assert given_up["status"] == "failed"
    assert len(receiver.told) == len(PAUSES) + 4
    assert (await office.deliveries(customer, endpoint))[0]["status"] == "delivered"


async def test_what_is_not_there_or_disabled_is_not_sent_to(
    office: Office, customer: Customer, receiver: Receiver
) -> None:
    endpoint = await office.add(customer, receiver.url)
    other = await office.add(customer, receiver.url)
    await pay(office, customer)
    await office.work()
    lines = await office.deliveries(customer, endpoint)
    path, stranger = f"{ENDPOINTS}/{endpoint['id']}", await office.customer()
    again = f"notices/{lines[0]['notice_id']}/resend"

    for what in ("test", again):
        assert (await office.call("POST", f"{path}/{what}", stranger.secret)).code == "not_found"
        assert (await office.call("POST", f"{path}/{what}", None)).code == "unauthorized"
    assert (await office.call("GET", f"{path}/deliveries", stranger.secret)).code == "not_found"
    assert (await office.call("POST", f"{ENDPOINTS}/{other['id']}/{again}", customer.secret)).code == "not_found"
    assert (await office.call("POST", f"{path}/notices/msg_nothing/resend", customer.secret)).code == "not_found"
    await office.call("PATCH", path, customer.secret, {"disabled": True})
    for what in ("test", again):
        assert (await office.call("POST", f"{path}/{what}", customer.secret)).code == "conflict"
    await office.work()
    assert len(receiver.told) == 2


async def test_what_was_not_tried_yet_is_listed_before_the_attempts(
    office: Office, customer: Customer, receiver: Receiver
) -> None:
    endpoint = await office.add(customer, receiver.url)
    await pay(office, customer, 1)
    await office.work()
    await pay(office, customer, 2)
    await office.make()

    lines = await office.deliveries(customer, endpoint)
    (first,) = (await office.call("GET", f"{ENDPOINTS}/{endpoint['id']}/deliveries?limit=1", customer.secret)).body

    assert [(line["status"], line["attempted_at"] is None) for line in lines] == [
        ("waiting", True),
        ("delivered", False),
    ]
    assert first == lines[0]
    assert first["next_try_at"] is not None


async def test_notices_are_forgotten_after_their_time_with_what_they_say(
    office: Office, customer: Customer, receiver: Receiver, admin: asyncpg.Connection
) -> None:
    endpoint = await office.add(customer, receiver.url)
    await pay(office, customer, 1)
    await office.work()
    office.clock.advance(days=1)
    await pay(office, customer, 2)
    await office.work()
    outbox = Outbox(office.ledger)
    office.clock.now += KEPT_FOR - timedelta(days=1)

    too_early = await outbox.purge(office.clock.now - KEPT_FOR)
    in_time = await outbox.purge(office.clock.now + timedelta(seconds=1) - KEPT_FOR)

    assert (too_early, in_time) == (0, 1)
    assert [told["notice_id"] for told in await office.deliveries(customer, endpoint)] == [receiver.told[1].id]
    assert await admin.fetchval("SELECT count(*) FROM notice_attempts") == 1


async def test_what_waits_and_what_became_of_deliveries_is_counted(
    office: Office, customer: Customer, receiver: Receiver
) -> None:
    await office.add(customer, receiver.url)
    outbox = Outbox(office.ledger)
    before = {result: attempts(result) for result in ("delivered", "postponed", "gone")}
    await pay(office, customer, 1)
    await office.make()
    office.clock.advance(seconds=90)
    waiting = await outbox.waiting(office.clock.now)
    receiver.behaviours = [500, 204, 410]
    await office.work()
    office.clock.now += PAUSES[0] * 1.2
    await office.work()
    await pay(office, customer, 2)
    await office.work()

    assert waiting == (1, 90)
    assert await outbox.waiting(office.clock.now) == (0, 0)
    assert {result: attempts(result) - count for result, count in before.items()} == dict.fromkeys(before, 1)


def attempts(result: str) -> float:
    return REGISTRY.get_sample_value("tollgate_notice_attempts_total", {"result": result}) or float(0)
