"""What receivers get: each notice once when all is well, at least once whatever happens."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from msgspec.structs import replace

from notices import Targets
from notices.courier import AT_ONCE_FAILING
from notices.outbox import AT_ONE_ENDPOINT, LEASE, PATIENCE
from notices.schedule import PAUSES
from tests.unit.ledger.scenes import credit, expire_topup, fail_topup, reinstate, request_topup, reverse

from .conftest import ENDPOINTS, SERVER_SECRET, Customer, Office
from .receiver import Receiver, hang, open_receiver

CENT = 1_000_000


def in_account(customer: Customer, *commands: Any) -> list[Any]:
    return [replace(command, stream_id=customer.account_id) for command in commands]


async def pay(office: Office, customer: Customer, number: int = 1, cents: int = 1000) -> None:
    """A top-up of this number that is credited."""
    topup, payment = f"topup_{number}", f"pi_{number}"
    await office.submit(*in_account(customer, request_topup(topup, cents * CENT), credit(topup, payment)))


async def test_a_credited_topup_is_told_once_signed_and_as_documented(
    office: Office, customer: Customer, receiver: Receiver
) -> None:
    endpoint = await office.add(customer, receiver.url)
    await pay(office, customer, cents=1250)

    await office.work()
    await office.work()

    (told,) = receiver.told
    assert told.verified_by(endpoint["secret"])
    assert told.headers["content-type"] == "application/json"
    assert told.json == {
        "type": "topup.credited",
        "timestamp": office.clock.now.isoformat().replace("+00:00", "Z"),
        "data": {
            "account_id": customer.account_id,
            "topup_id": "topup_1",
            "source": "stripe",
            "currency": "USD",
            "amount_cents": 1250,
            "balance_cents": 1250,
            "reference_id": "pi_1",
        },
    }
    (line,) = await office.deliveries(customer, endpoint)
    assert (line["notice_id"], line["type"], line["status"]) == (told.id, "topup.credited", "delivered")
    assert (line["status_code"], line["error"], line["next_try_at"]) == (204, None, None)


async def test_every_end_of_a_topup_is_told(office: Office, customer: Customer, receiver: Receiver) -> None:
    await office.add(customer, receiver.url)
    await pay(office, customer, 1)
    lost = [request_topup("topup_2", 700 * CENT), request_topup("topup_3", 800 * CENT)]
    ends = [fail_topup("topup_2"), expire_topup("topup_3")]
    await office.submit(
        *in_account(customer, *lost, *ends, reverse(400 * CENT, "dispute"), reinstate(150 * CENT, "dispute"))
    )

    await office.work()

    said = {told.json["type"]: told.json["data"] for told in receiver.told}
    amounts = {type_: data["amount_cents"] for type_, data in said.items()}
    assert amounts == {
        "topup.credited": 1000,
        "topup.failed": 700,
        "topup.expired": 800,
        "topup.reversed": 400,
        "topup.reinstated": 250,
    }
    for type_, reversed_cents, balance_cents in (("topup.reversed", 400, 600), ("topup.reinstated", 150, 850)):
        assert (said[type_]["kind"], said[type_]["reversed_cents"]) == ("dispute", reversed_cents)
        assert said[type_]["balance_cents"] == balance_cents
    assert "card_declined" not in str(said)


async def test_an_endpoint_is_told_what_it_asked_for_from_when_it_was_made_and_while_it_is_enabled(
    office: Office, customer: Customer, receiver: Receiver
) -> None:
    url = receiver.url
    await office.add(customer, f"{url}/all")
    await office.add(customer, f"{url}/failed", events=["topup.failed"])
    disabled = await office.add(customer, f"{url}/disabled")
    await office.call("PATCH", f"{ENDPOINTS}/{disabled['id']}", customer.secret, {"disabled": True})
    await office.add(await office.customer(), f"{url}/stranger")
    await pay(office, customer, 1)
    await office.add(customer, f"{url}/later")
    await pay(office, customer, 2)

    await office.work()

    told = sorted((each.path.rpartition("/")[2], each.json["data"]["topup_id"]) for each in receiver.told)
    assert told == [("all", "topup_1"), ("all", "topup_2"), ("later", "topup_2")]


async def test_two_workers_at_once_make_and_deliver_every_notice_once(
    office: Office, customer: Customer, receiver: Receiver
) -> None:
    for each in "ab":
        await office.add(customer, f"{receiver.url}/{each}")
    for number in range(20):
        await pay(office, customer, number)

    await asyncio.gather(*[office.work() for _ in range(2)])

    told = sorted((each.path[-1], each.json["data"]["topup_id"]) for each in receiver.told)
    assert told == sorted((each, f"topup_{number}") for each in "ab" for number in range(20))
    assert len({each.id for each in receiver.told}) == 40


async def test_a_worker_killed_while_it_waits_for_the_answer_leaves_the_notice_to_another_under_the_same_id(
    office: Office, customer: Customer, receiver: Receiver
) -> None:
    endpoint = await office.add(customer, receiver.url)
    await pay(office, customer)
    await office.make()
    receiver.behaviours = [hang]
    async with office.courier() as killed:
        await killed.begin()
        await receiver.until_told(1)
        stop_deliveries()

    await office.work()
    before_the_lease_ends = len(receiver.told)
    office.clock.now += LEASE
    await office.work()
    office.clock.now += LEASE
    await office.work()

    first, second = receiver.told
    assert before_the_lease_ends == 1
    assert (first.id, first.body) == (second.id, second.body)
    assert second.verified_by(endpoint["secret"])
    assert [line["status"] for line in await office.deliveries(customer, endpoint)] == ["delivered"]


async def test_a_worker_that_is_slower_than_its_lease_changes_nothing_of_what_another_did(
    office: Office, customer: Customer, receiver: Receiver
) -> None:
    endpoint = await office.add(customer, receiver.url)
    await pay(office, customer)
    await office.make()
    answered = asyncio.Event()

    async def fails_late(request: web.Request) -> web.StreamResponse:
        await answered.wait()
        return web.Response(status=500)

    receiver.behaviours = [fails_late]
    async with office.courier() as slow:
        await slow.begin()
        await receiver.until_told(1)
        office.clock.now += LEASE
        await office.work()
        answered.set()
        await slow.finish()
    office.clock.advance(days=1)
    await office.work()

    lines = await office.deliveries(customer, endpoint)
    assert sorted(line["status_code"] for line in lines) == [204, 500]
    assert {line["status"] for line in lines} == {"delivered"}
    assert len(receiver.told) == 2


async def test_what_fails_is_tried_again_by_the_schedule_until_it_is_taken(
    office: Office, customer: Customer, receiver: Receiver
) -> None:
    endpoint = await office.add(customer, receiver.url)
    await pay(office, customer)
    receiver.behaviours = [500, 503]
    began = office.clock.now.isoformat().replace("+00:00", "Z")
    seen = []
    for pause in (timedelta(0), *PAUSES[:3]):
        office.clock.now += pause * 1.2
        await office.work()
        path = f"{ENDPOINTS}/{endpoint['id']}"
        failing_since = (await office.call("GET", path, customer.secret)).body["failing_since"]
        seen.append((len(receiver.told), failing_since))
        await office.work()

    lines = await office.deliveries(customer, endpoint)
    assert seen == [(1, began), (2, began), (3, None), (3, None)]
    assert len({told.id for told in receiver.told}) == 1
    assert [(line["status_code"], line["error"]) for line in lines] == [
        (204, None),
        (503, "answered 503"),
        (500, "answered 500"),
    ]
    assert {line["status"] for line in lines} == {"delivered"}


async def test_a_receiver_may_ask_for_more_patience(office: Office, customer: Customer, receiver: Receiver) -> None:
    endpoint = await office.add(customer, receiver.url)
    await pay(office, customer)
    receiver.behaviours = [asks_for_patience]

    await office.work()

    (line,) = await office.deliveries(customer, endpoint)
    assert line["next_try_at"] == (office.clock.now + timedelta(hours=1)).isoformat().replace("+00:00", "Z")


async def test_a_notice_is_given_up_after_the_last_try_and_its_endpoint_disabled_after_days_of_failures(
    office: Office, customer: Customer, receiver: Receiver
) -> None:
    endpoint = await office.add(customer, receiver.url)
    path = f"{ENDPOINTS}/{endpoint['id']}"
    await pay(office, customer)
    receiver.behaviours = [500] * 20
    for pause in (timedelta(0), *PAUSES, timedelta(days=1)):
        office.clock.now += pause * 1.2
        await office.work()

    given_up = await office.deliveries(customer, endpoint)
    failing = (await office.call("GET", path, customer.secret)).body
    office.clock.now += PATIENCE
    await pay(office, customer, 2)
    await office.work()
    disabled = (await office.call("GET", path, customer.secret)).body
    await pay(office, customer, 3)
    await office.work()

    assert len(given_up) == len(PAUSES) + 1
    assert {line["status"] for line in given_up} == {"failed"}
    assert (failing["disabled"], failing["failing_since"] is None) == (False, False)
    assert (disabled["disabled"], disabled["disabled_reason"]) == (True, "nothing but failures for 5 days")
    assert len(receiver.told) == len(PAUSES) + 2

    await office.call("PATCH", path, customer.secret, {"disabled": False})
    receiver.behaviours = []
    office.clock.now += PAUSES[0] * 1.2
    await office.work()

    assert receiver.told[-1].json["data"]["topup_id"] == "topup_2"
    assert (await office.call("GET", path, customer.secret)).body["failing_since"] is None


async def test_gone_disables_the_endpoint_at_once(office: Office, customer: Customer, receiver: Receiver) -> None:
    endpoint = await office.add(customer, receiver.url)
    await pay(office, customer)
    receiver.behaviours = [410]

    await office.work()
    await pay(office, customer, 2)
    office.clock.advance(days=1)
    await office.work()

    told = (await office.call("GET", f"{ENDPOINTS}/{endpoint['id']}", customer.secret)).body
    assert len(receiver.told) == 1
    assert (told["disabled"], told["disabled_reason"]) == (True, "its receiver answered 410 Gone")


def stop_deliveries() -> None:
    """As a process does that is killed: nothing is noted."""
    for task in asyncio.all_tasks():
        if task.get_name().startswith("deliver "):
            task.cancel()


async def asks_for_patience(request: web.Request) -> web.StreamResponse:
    return web.Response(status=429, headers={"Retry-After": "3600"})


async def redirects(request: web.Request) -> web.StreamResponse:
    return web.Response(status=307, headers={"Location": "/elsewhere"})


async def never_ends(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(status=200)
    await response.prepare(request)
    while True:
        await response.write(b"and so on " * 1000)


async def hangs_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def speaks_nonsense(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.write(b"220 smtp.example ESMTP\r\n")  # type: ignore[attr-defined]
    return await hang(request)


async def sends_endless_headers(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.write(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000)  # type: ignore[attr-defined]
    return await hang(request)


@pytest.mark.parametrize(
    ("behaviour", "status", "error"),
    [
        (hang, None, "no answer within 0.3 s"),
        (redirects, 307, "answered 307, and redirects are not followed"),
        (never_ends, 200, None),
        (hangs_up, None, "it hung up without an answer"),
        (speaks_nonsense, None, "its answer cannot be read"),
        (sends_endless_headers, None, "its answer cannot be read"),
        (404, 404, "answered 404"),
    ],
)
async def test_a_receiver_that_misbehaves_is_noted_and_costs_nobody_anything(
    office: Office, customer: Customer, receiver: Receiver, behaviour: Any, status: int | None, error: str | None
) -> None:
    endpoint = await office.add(customer, receiver.url)
    await pay(office, customer)
    receiver.behaviours = [behaviour]

    await office.work(timeout_s=0.3)

    (line,) = await office.deliveries(customer, endpoint)
    assert (line["status_code"], line["status"]) == (status, "waiting" if error else "delivered")
    assert (line["error"] or "").startswith(error or "")
    assert [told.path for told in receiver.told] == ["/hook"]


async def test_nobody_listening_is_a_failure_like_any_other(office: Office, customer: Customer) -> None:
    async with open_receiver() as receiver:
        endpoint = await office.add(customer, receiver.url)
    await pay(office, customer)

    await office.work()

    (line,) = await office.deliveries(customer, endpoint)
    assert (line["status"], line["error"]) == ("waiting", "it cannot be connected to")


async def test_receivers_that_hang_keep_nobody_else_waiting(
    office: Office, customer: Customer, receiver: Receiver
) -> None:
    async with open_receiver() as hanging:
        hanging.behaviours = [500] * 10 + [hang] * 1000
        for number in range(10):
            slow = await office.customer()
            await office.add(slow, hanging.url)
            await office.submit(*in_account(slow, request_topup(f"topup_a{number}"), fail_topup(f"topup_a{number}")))
        await office.work()  # once each, so that it is known of them
        office.clock.advance(minutes=1)
        async with office.courier(timeout_s=60) as courier:
            await courier.begin()
            await hanging.until_told(10 + AT_ONCE_FAILING)
            endpoint = await office.add(customer, receiver.url)
            await pay(office, customer)
            await office.make()
            await courier.begin()
            await receiver.until_told(1)
            told = len(hanging.told)
            stop_deliveries()

    assert receiver.told[0].verified_by(endpoint["secret"])
    assert told == 10 + AT_ONCE_FAILING


async def test_one_endpoint_has_a_few_deliveries_at_a_time(
    office: Office, customer: Customer, receiver: Receiver
) -> None:
    await office.add(customer, receiver.url)
    for number in range(AT_ONE_ENDPOINT + 3):
        await pay(office, customer, number)
    await office.make()
    receiver.behaviours = [hang] * 100

    async with office.courier() as one, office.courier() as other:
        await one.begin()
        await receiver.until_told(AT_ONE_ENDPOINT)
        await other.begin()
        await other.finish()
        stop_deliveries()

    assert len(receiver.told) == AT_ONE_ENDPOINT


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
async def test_an_address_that_is_not_public_is_refused_when_it_is_connected_to(
    office: Office, customer: Customer, receiver: Receiver, host: str
) -> None:
    endpoint = await office.add(customer, receiver.url.replace("127.0.0.1", host))
    await pay(office, customer)

    await office.work(targets=Targets(allow_http=True, allow_private=False))

    (line,) = await office.deliveries(customer, endpoint)
    assert line["error"] == "the URL's host is not on the public internet"
    assert receiver.told == []


async def test_both_secrets_sign_for_a_day_and_then_the_new_one(
    office: Office, customer: Customer, receiver: Receiver
) -> None:
    now = office.clock.now
    office.clock.now = now - timedelta(hours=24) + timedelta(seconds=30)
    made = await office.add(customer, receiver.url)
    rotate = f"{ENDPOINTS}/{made['id']}/rotate_secret"
    rotated = (await office.call("POST", rotate, customer.secret)).body
    office.clock.now = now
    await pay(office, customer, 1)
    await office.work()
    office.clock.advance(seconds=30)
    await pay(office, customer, 2)
    await office.work()

    both, new = receiver.told
    assert (both.verified_by(made["secret"]), both.verified_by(rotated["secret"])) == (True, True)
    assert (new.verified_by(made["secret"]), new.verified_by(rotated["secret"])) == (False, True)


async def test_a_lost_server_secret_is_said_clearly_and_rotating_mends_it(
    office: Office, customer: Customer, receiver: Receiver
) -> None:
    endpoint = await office.add(customer, receiver.url)
    await pay(office, customer)

    await office.work(server_secret=b"another " * 8)
    (line,) = await office.deliveries(customer, endpoint)
    rotated = await office.call("POST", f"{ENDPOINTS}/{endpoint['id']}/rotate_secret", customer.secret)
    office.clock.now += PAUSES[0] * 1.2
    await office.work()

    assert line["error"] == "the signing secret was sealed under another TOLLGATE_SECRET; rotate it"
    assert receiver.told[0].verified_by(rotated.body["secret"])
    assert SERVER_SECRET not in receiver.told[0].body
