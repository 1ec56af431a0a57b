"""A receipt tells all that the books say about one request, to whose it is."""

import os
import signal
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio

from ledger import new_id
from tests.acceptance.another_process import expired_and_settled_late, submit
from tests.acceptance.asked import Asked
from tests.acceptance.charges import assert_free, assert_paid
from tests.acceptance.client import Answer, comments_of
from tests.acceptance.customers import CHAT, MODEL, Customer, gather, new_customer, request, unique_prompt
from tests.acceptance.prices import price_of_usage
from tests.acceptance.running_demo import RunningDemo, place_for_demo, until

TOKENS = 6


async def receipt_of(customer: Customer, hold_id: str, *, secret: str | None = None) -> Answer:
    return await customer.demo.http.get(f"/v1/receipts/{hold_id}", headers=customer.bearer(secret))


async def test_a_receipt_has_the_usage_and_lines_that_add_up_to_the_charge(customer: Customer) -> None:
    answer = await customer.chat(max_tokens=5)
    hold_id = answer.headers["x-tollgate-hold-id"]

    receipts = [await receipt_of(customer, hold_id, secret=secret) for secret in (None, customer.session)]

    cost = price_of_usage(MODEL, answer.json["usage"])
    for receipt in receipts:
        assert receipt.status == 200
        body = receipt.json
        [charge] = body["charges"]
        assert (body["id"], body["status"], body["outcome"]) == (hold_id, "settled", "completed")
        assert (body["request_id"], body["key_id"]) == (answer.headers["x-request-id"], customer.key.id)
        assert body["charged_cents"] == charge["charged_cents"] == cost
        assert sum(line["amount_cents"] for line in charge["lines"]) == cost
        assert charge["usage"]["output_tokens"] == 5
        assert charge["currency"] == "USD"
        assert body["held_cents"] >= body["charged_cents"]
        assert [event["type"] for event in body["events"]] == ["hold.placed", "hold.settled"]
        assert body["corrections"] == []


async def test_a_stream_names_its_receipt_before_it_begins(customer: Customer) -> None:
    answer = await customer.chat(stream=True, max_tokens=5)

    receipt = (await receipt_of(customer, answer.headers["x-tollgate-hold-id"])).json

    assert receipt["charged_cents"] == comments_of(answer.body)["x-tollgate-cost-cents"]


async def test_a_request_that_was_not_served_has_a_receipt_without_a_charge(customer: Customer) -> None:
    refused = await customer.chat(simulate={"status": 400})
    holds = await customer.demo.fetch(
        "SELECT hold_id FROM events WHERE stream_id = $1 AND type = 'hold.placed'", customer.account_id
    )

    receipt = (await receipt_of(customer, holds[0]["hold_id"])).json

    assert refused.status == 400
    assert (receipt["status"], receipt["charged_cents"], receipt["charges"]) == ("voided", 0, [])


async def test_a_request_that_was_settled_after_its_hold_expired_is_a_settled_one_that_is_late(
    customer: Customer,
) -> None:
    served = (await receipt_of(customer, (await customer.chat(max_tokens=5)).headers["x-tollgate-hold-id"])).json
    [charge] = served["charges"]
    hold_id = new_id("hold")

    await submit(customer.demo, *expired_and_settled_late(customer, hold_id, charge))
    receipt = (await receipt_of(customer, hold_id)).json

    assert [event["type"] for event in receipt["events"]] == ["hold.placed", "hold.expired", "hold.settled_late"]
    assert (receipt["status"], receipt["late"], receipt["outcome"]) == ("settled", True, "client_gone")
    assert (receipt["served"], receipt["retry_count"], receipt["backend"]) == ({"delivered": 3}, 2, "gpu-1")
    assert receipt["charged_cents"] == receipt["charges"][0]["charged_cents"] == charge["charged_cents"]
    assert receipt["ended_at"] > receipt["placed_at"]
    assert (served["late"], served["retry_count"]) == (False, 0)


@pytest.mark.parametrize("hold_id", ["hold_of_nobody", "hold_%00", "acct_1", "hold_" + "x" * 200, "%ff"])
async def test_what_is_no_receipt_is_not_found(customer: Customer, hold_id: str) -> None:
    assert (await receipt_of(customer, hold_id)).status == 404


async def test_another_customers_receipt_is_not_found_and_an_operator_sees_it(
    demo: RunningDemo, customer: Customer
) -> None:
    hold_id = (await customer.chat(max_tokens=3)).headers["x-tollgate-hold-id"]
    stranger = await new_customer(demo)

    hidden = await receipt_of(stranger, hold_id)
    asked_for = await demo.http.get(
        f"/v1/receipts/{hold_id}?account_id={customer.account_id}", headers=stranger.bearer()
    )
    path = f"/v1/receipts/{hold_id}"
    seen = await demo.http.get(f"{path}?account_id={customer.account_id}", headers=demo.operator)
    of_nobody = await demo.http.get(path, headers=demo.operator)

    assert (hidden.status, asked_for.status) == (404, 403)
    assert (seen.status, seen.json["id"]) == (200, hold_id)
    assert (of_nobody.status, of_nobody.error["param"]) == (400, "account_id")
    assert (await demo.http.get(path)).status == 401


async def test_a_corrected_charge_shows_its_correction_and_the_lines_of_the_right_program(
    customer: Customer, tmp_path: Any
) -> None:
    demo = customer.demo
    answer = await customer.chat(max_tokens=5)
    hold_id = answer.headers["x-tollgate-hold-id"]
    wrong = (await receipt_of(customer, hold_id)).json["charges"][0]["program"]
    text = (await demo.command("prices", "show", wrong)).out.replace("0.6", "0.3")
    file = tmp_path / "right.toml"
    file.write_text(text)
    right = (await demo.command("prices", "publish", str(file))).out.split()[0]
    period = ("--from", "2026-01-01", "--to-time", "2099-01-01", "--account", customer.account_id)

    done = await demo.command("prices", "rerate", wrong, "--to", right, *period, "--apply", "--reason", "too dear")
    receipt = await until(lambda: _explained(customer, hold_id))

    assert done.status == 0, done
    [correction], [charge] = receipt["corrections"], receipt["charges"]
    assert correction["before_cents"] == Decimal(answer.headers["x-tollgate-cost-cents"])
    assert correction["after_cents"] == charge["charged_cents"] == receipt["charged_cents"]
    assert (correction["program"], correction["reason"], charge["program"]) == (right, "too dear", right)
    assert sum(line["amount_cents"] for line in charge["lines"]) == charge["charged_cents"]
    assert charge["charged_cents"] < correction["before_cents"]
    assert [event["type"] for event in receipt["events"]] == ["hold.placed", "hold.settled", "charge.rerated"]


async def _explained(customer: Customer, hold_id: str) -> Any:
    """The receipt with its lines, once the worker that is asked has heard of the program."""
    receipt = (await receipt_of(customer, hold_id)).json
    return receipt if receipt["charges"][0]["lines"] is not None else None


# --- how a request was served


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("said", "retry_count"), [("0", 0), ("3", 3), ("", 0), ("-1", 0), ("two", 0), ("9" * 30, 0)], ids=str
)
async def test_a_receipt_says_which_try_of_its_client_it_was(
    customer: Customer, stream: bool, said: str, retry_count: int
) -> None:
    headers = {**customer.bearer(), "x-stainless-retry-count": said}

    answer = await customer.demo.http.post(CHAT, request(stream=stream, max_tokens=3), headers=headers)

    receipt = await customer.receipt(answer.headers["x-tollgate-hold-id"])
    assert (receipt["retry_count"], receipt["outcome"]) == (retry_count, "completed")


async def test_a_receipt_of_a_stream_that_was_left_tells_what_was_delivered_and_what_was_made(
    customer: Customer,
) -> None:
    async with customer.stream(simulate={"tokens": 1000, "token_latency_ms": 20}) as stream:
        asked = Asked(stream)
        await asked.read_tokens(TOKENS)

    receipt = await customer.receipt(asked.hold_id)

    served, [charge] = receipt["served"], receipt["charges"]
    made = await customer.demo.generated(asked.request_id)
    assert made is not None
    assert asked.tokens <= served["delivered_tokens"] == charge["usage"]["output_tokens"]
    assert served["delivered_tokens"] <= served["generated_tokens"] <= made.completion_tokens
    assert 0 <= served["first_byte_ms"] <= served["took_ms"]


@pytest_asyncio.fixture(scope="module")
async def two_backends() -> AsyncIterator[RunningDemo]:
    """A demo with one worker, which has two ways to the backend."""
    async with place_for_demo() as directory:
        demo = await RunningDemo.start(directory, workers=1)
        try:
            await serve_by_another_backend(demo)
            yield demo
            await demo.assert_books_in_order()
        finally:
            await demo.kill()


async def serve_by_another_backend(demo: RunningDemo) -> None:
    url, models = demo.information.backend_url, demo.information.models
    with demo.settings_file.open("a") as settings:
        settings.write(f'\n[[backends]]\nname = "other-gpu"\nurl = "{url}"\nmodels = {models}\n')
    workers = demo.gate_workers
    for worker in workers:  # new settings are read by new workers
        os.kill(worker, signal.SIGTERM)
    await demo.until_workers_serve(instead_of=workers)


@pytest_asyncio.fixture
async def customer_of_two(two_backends: RunningDemo) -> Customer:
    """Somebody whose only request will find both backends well: a few failures in a row would close the way to one."""
    another = await new_customer(two_backends)
    at_once = {"tokens": 10, "token_latency_ms": 30}  # so that each backend gets one
    await gather(another.chat(simulate=at_once), another.chat(simulate=at_once))
    return await new_customer(two_backends)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "outcome"), [({"status": 500}, "refused"), ({"close_before_headers": True}, "broke")], ids=str
)
async def test_a_receipt_names_each_backend_that_was_asked_and_has_one_charge(
    customer_of_two: Customer, stream: bool, fault: dict[str, Any], outcome: str
) -> None:
    customer = customer_of_two
    await customer.demo.backend.post("/_simulator/faults", {**fault, "times": 1})

    answer = await customer.chat(stream=stream, simulate={"tokens": TOKENS, "token_latency_ms": 1})

    assert answer.status == 200
    receipt = await assert_paid(customer, tokens=TOKENS, outcome="completed")
    served = receipt["served"]
    failed, answered = served["attempts"]
    assert (failed["outcome"], failed.get("status")) == (outcome, fault.get("status"))
    assert (answered["outcome"], answered["status"]) == ("answered", 200)
    assert {failed["backend"], answered["backend"]} == {"simulated-gpu", "other-gpu"}
    assert receipt["backend"] == answered["backend"]
    assert failed["took_ms"] + answered["took_ms"] <= served["took_ms"] + 1  # each is rounded by itself
    assert served["first_byte_ms"] <= served["took_ms"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_receipt_of_a_request_that_no_backend_answered_names_all_of_them(
    customer_of_two: Customer, stream: bool
) -> None:
    customer = customer_of_two
    await customer.demo.backend.post("/_simulator/faults", {"status": 503, "times": 2})

    answer = await customer.chat(stream=stream)

    assert (answer.status, answer.error["code"]) == (502, "backend_error")
    receipt = await assert_free(customer, outcome="backend_failed")
    attempts = receipt["served"]["attempts"]
    assert [(attempt["outcome"], attempt["status"]) for attempt in attempts] == [("refused", 503)] * 2
    assert "first_byte_ms" not in receipt["served"]


async def test_the_sdks_next_try_has_a_receipt_of_its_own_that_says_so(customer_of_two: Customer) -> None:
    customer = customer_of_two
    messages: Any = unique_prompt()
    await customer.demo.backend.post("/_simulator/faults", {"status": 500, "times": 2})

    async with customer.async_sdk(max_retries=1) as sdk:
        await sdk.chat.completions.create(model=MODEL, messages=messages)

    receipts = [await customer.receipt(hold_id, status="voided") for hold_id in await customer.holds()]
    assert [(receipt["status"], receipt["retry_count"]) for receipt in receipts] == [("voided", 0), ("settled", 1)]
    assert (await customer.when_no_hold_is_open())["spent_cents"] == receipts[1]["charged_cents"]
