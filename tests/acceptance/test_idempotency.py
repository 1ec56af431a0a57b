"""A request with an ``Idempotency-Key`` is served and charged once, however often and by however many it is sent.

The demo has several workers, and each try comes on a connection of its own: what one worker is at, another must know.
"""

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from ledger import ExpireHold
from tests.acceptance.another_process import submit
from tests.acceptance.client import Answer, chunks_of, tokens_in
from tests.acceptance.conftest import breakable_demo
from tests.acceptance.customers import MODEL, Customer, gather, new_customer, unique_prompt
from tests.acceptance.keyed import TOKENS, KeyedRequest, assert_same_answer, is_replay, is_told_to_wait
from tests.acceptance.prices import price_in_cents
from tests.acceptance.running_demo import RunningDemo, until

MANY = 20
#: A model's longest answer, and how many of it are more than what is kept.
LONGEST = 8192
TOO_MANY = {False: 128, True: 8}  # by whether it is a stream, whose words come in an event each
#: An answer that is still being made when others ask for it.
SLOW: dict[str, Any] = {"tokens": 100, "token_latency_ms": 40}


@pytest_asyncio.fixture(scope="module")
async def demo() -> AsyncIterator[RunningDemo]:
    """Its workers may be killed. At its end the books are in order."""
    async for demo in breakable_demo():
        yield demo
        await demo.assert_books_in_order()
        assert "Traceback" not in demo.output


@pytest_asyncio.fixture
async def customer(demo: RunningDemo) -> Customer:
    return await new_customer(demo)


async def assert_charged_once(customer: Customer, *, tokens: int = TOKENS) -> Any:
    """Of all that the customer sent, one request was charged, with so many tokens. Gives its receipt."""
    account = await customer.when_no_hold_is_open()
    [settled] = [event for event in await customer.events() if event["type"] == "hold.settled"]
    receipt = await customer.receipt(settled["hold_id"])
    made = await customer.demo.generated(receipt["request_id"])
    assert made is not None
    price = price_in_cents(MODEL, input_tokens=made.prompt_tokens, output_tokens=tokens)
    assert receipt["charged_cents"] == account["spent_cents"] == price
    return receipt


async def is_forwarded(customer: Customer) -> bool:
    """Whether the backend is at work on a request of the customer."""
    known = [event["payload"] for event in await customer.events()]
    running = (await customer.demo.backend.get("/_simulator/requests?running=1")).json
    return any(each["request_id"] in payload for each in running for payload in known)


# --- the same request


@pytest.mark.parametrize("stream", [False, True])
async def test_the_same_request_again_gets_the_same_answer_and_costs_nothing(customer: Customer, stream: bool) -> None:
    asked = KeyedRequest(customer, stream=stream)

    first = await asked.send()
    balance = await customer.balance()
    again = await gather(*(asked.send() for _ in range(3)))

    assert not is_replay(first)
    for answer in again:
        assert_same_answer(first, answer)
    assert await customer.balance() == balance
    assert len(await customer.holds()) == 1
    await assert_charged_once(customer)


@pytest.mark.money_bug(26)
@pytest.mark.parametrize("stream", [False, True])
async def test_of_many_at_once_one_is_served_and_the_others_wait_for_its_answer(
    customer: Customer, stream: bool
) -> None:
    asked = KeyedRequest(customer, stream=stream)

    tries = await gather(*(asked.send(tokens=20, token_latency_ms=20) for _ in range(MANY)))
    answers = await gather(*(asked.send_until_answered() for _ in range(MANY)))

    [first] = [answer for answer in tries if answer.status == 200 and not is_replay(answer)]
    for answer in tries:
        assert answer is first or is_replay(answer) or is_told_to_wait(answer), answer
    for answer in answers:
        assert_same_answer(first, answer)
    assert len(await customer.holds()) == 1
    await assert_charged_once(customer, tokens=20)


@pytest.mark.parametrize("stream", [False, True])
async def test_while_a_request_is_served_the_next_is_told_to_try_again(customer: Customer, stream: bool) -> None:
    asked = KeyedRequest(customer, stream=stream)
    serving = asyncio.create_task(asked.send(**SLOW))
    await until(lambda: is_forwarded(customer))

    meanwhile = await asked.send()

    assert is_told_to_wait(meanwhile), meanwhile
    assert_same_answer(await serving, await asked.send())


@pytest.mark.money_bug(21)
async def test_another_body_under_the_same_key_is_refused_while_the_first_is_served_and_afterwards(
    customer: Customer,
) -> None:
    asked = KeyedRequest(customer)
    serving = asyncio.create_task(asked.send(**SLOW))
    await until(lambda: is_forwarded(customer))
    other = KeyedRequest(customer, key=asked.key)

    refused = [await other.send()]
    await serving
    refused += [await other.send(), await KeyedRequest(customer, key=asked.key, stream=True).send()]

    for answer in refused:
        assert (answer.status, answer.error["code"]) == (409, "idempotency_mismatch")
        assert answer.headers["x-should-retry"] == "false"
    await assert_charged_once(customer, tokens=SLOW["tokens"])


@pytest.mark.money_bug(21)
async def test_a_key_is_the_accounts_own_whichever_api_key_is_used(demo: RunningDemo, customer: Customer) -> None:
    asked = KeyedRequest(customer)
    stranger = await new_customer(demo)
    same_of_stranger = KeyedRequest(stranger, key=asked.key)
    same_of_stranger.body = asked.body

    first = await asked.send()
    with_another_api_key = await asked.send(secret=(await customer.new_key()).secret)
    of_stranger = await same_of_stranger.send()

    assert_same_answer(first, with_another_api_key)
    assert not is_replay(of_stranger)
    assert of_stranger.headers["x-tollgate-hold-id"] != first.headers["x-tollgate-hold-id"]
    await assert_charged_once(customer)
    assert len(await stranger.holds()) == 1


@pytest.mark.parametrize("key", ["k" * 255, "!", "a/b:c-d_e~"])
async def test_a_key_is_any_visible_ascii(customer: Customer, key: str) -> None:
    asked = KeyedRequest(customer, key=key)

    assert_same_answer(await asked.send(), await asked.send())


@pytest.mark.parametrize("key", ["", "k" * 256, "two words", "tab\tbed", "schlüssel", "\u540d"])
async def test_what_is_no_key_is_refused(customer: Customer, key: str) -> None:
    refused = await KeyedRequest(customer, key=key).send()

    assert (refused.status, refused.error["code"], refused.error["param"]) == (
        400,
        "invalid_request",
        "idempotency-key",
    )
    assert await customer.holds() == []


# --- the official SDK


async def test_the_sdk_reads_a_plain_answer_that_was_stored(customer: Customer) -> None:
    messages: Any = unique_prompt()
    headers = {"Idempotency-Key": secrets.token_hex(8)}

    async with customer.async_sdk(max_retries=0) as sdk:
        first = await sdk.chat.completions.create(model=MODEL, messages=messages, extra_headers=headers)
        again = await sdk.chat.completions.create(model=MODEL, messages=messages, extra_headers=headers)

    assert again == first
    assert len(await customer.holds()) == 1


async def test_the_sdk_reads_a_stream_that_was_stored(customer: Customer) -> None:
    messages: Any = unique_prompt()
    headers = {"Idempotency-Key": secrets.token_hex(8)}

    async def chunks(sdk: Any) -> list[Any]:
        stream = await sdk.chat.completions.create(
            model=MODEL,
            messages=messages,
            stream=True,
            stream_options={"include_usage": True},
            extra_headers=headers,
        )
        return [chunk async for chunk in stream]

    async with customer.async_sdk(max_retries=0) as sdk:
        first, again = await chunks(sdk), await chunks(sdk)

    assert again == first
    assert again[-1].usage.completion_tokens > 0
    assert len(await customer.holds()) == 1


async def test_the_sdk_waits_for_an_answer_that_another_asked_for(customer: Customer) -> None:
    messages: Any = unique_prompt()
    headers = {"Idempotency-Key": secrets.token_hex(8), "x-simulate": "tokens=50,token_latency_ms=20"}

    async with customer.async_sdk(max_retries=20) as sdk:
        first, *others = await gather(
            *(sdk.chat.completions.create(model=MODEL, messages=messages, extra_headers=headers) for _ in range(4))
        )

    assert others == [first] * 3
    assert len(await customer.holds()) == 1


# --- a first try that was not charged


async def test_a_try_that_was_refused_before_its_hold_leaves_the_key_to_any_other(demo: RunningDemo) -> None:
    customer = await new_customer(demo, cents=0)
    asked = KeyedRequest(customer)

    refused = [
        await asked.send(),
        await KeyedRequest(customer, key=asked.key, model="nobody").send(),
        await KeyedRequest(customer, key=asked.key, unheard_of=1).send(),
    ]
    await demo.grant(customer.account_id, 100)
    served = await asked.send()

    assert [answer.status for answer in refused] == [402, 404, 400]
    assert not is_replay(served)
    assert_same_answer(served, await asked.send())
    await assert_charged_once(customer)


async def test_a_try_beyond_the_rate_limit_leaves_the_key_free(customer: Customer) -> None:
    limited = await customer.new_key(rate_limit_rpm=1)
    await KeyedRequest(customer).send(secret=limited.secret)
    asked = KeyedRequest(customer)

    refused = await asked.send(secret=limited.secret)
    served = await asked.send()

    assert (refused.status, served.status, is_replay(served)) == (429, 200, False)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", [{"status": 500}, {"status": 400}, {"close_before_headers": "true"}], ids=str)
async def test_a_backend_that_fails_before_its_answer_leaves_the_key_free(
    customer: Customer, stream: bool, fault: dict[str, Any]
) -> None:
    asked = KeyedRequest(customer, stream=stream)

    failed = await asked.send(**fault)
    served = await asked.send_until_answered()

    assert failed.status == (400 if fault.get("status") == 400 else 502)
    assert not is_replay(served)
    assert_same_answer(served, await asked.send())
    assert len(await customer.holds()) == 2
    await assert_charged_once(customer)


@pytest.mark.parametrize("fault", [{"close_after": 3}, {"error_after": 3}, {"usage": "missing"}], ids=str)
async def test_a_plain_answer_that_is_withheld_leaves_the_key_free(customer: Customer, fault: dict[str, Any]) -> None:
    asked = KeyedRequest(customer)

    failed = await asked.send(**fault)
    served = await asked.send_until_answered()

    assert failed.status == 502
    assert not is_replay(served)
    await assert_charged_once(customer)


@pytest.mark.parametrize("fault", [{"close_after": 0}, {"error_after": 0}, {"usage": "missing"}], ids=str)
async def test_a_stream_that_is_free_leaves_the_key_free(customer: Customer, fault: dict[str, Any]) -> None:
    asked = KeyedRequest(customer, stream=True)

    await asked.send(**fault)
    served = await asked.send_until_answered()

    assert not is_replay(served)
    assert len(chunks_of(served.body)) > TOKENS
    await assert_charged_once(customer)


@pytest.mark.parametrize("fault", [{"close_after": 3}, {"error_after": 3}], ids=str)
async def test_a_stream_that_broke_off_is_given_again_as_it_was(customer: Customer, fault: dict[str, Any]) -> None:
    """Its part was charged. Whoever wants it anew takes another key."""
    asked = KeyedRequest(customer, stream=True)

    first = await asked.send(**{**fault, "tokens": 1000})
    again = await asked.send()

    assert b'"code":"backend_error"' in again.body
    assert tokens_in(again.body) == 3
    assert_same_answer(first, again)
    assert (await assert_charged_once(customer, tokens=3))["outcome"] == "backend_failed"


# --- a client that leaves


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_whose_client_leaves_before_the_first_byte_is_finished_for_the_next(
    customer: Customer, stream: bool
) -> None:
    asked = KeyedRequest(customer, stream=stream)
    asking = asyncio.create_task(asked.send(hang=1))
    await until(lambda: is_forwarded(customer))
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)

    answer = await asked.send_until_answered()

    assert is_replay(answer)
    assert len(await customer.holds()) == 1
    await assert_is_whole(customer, answer, tokens=TOKENS)


async def test_a_stream_whose_client_leaves_within_it_is_finished_for_the_next(customer: Customer) -> None:
    asked = KeyedRequest(customer, stream=True)
    async with asked.opened(**SLOW) as stream:
        await stream.read_tokens(2)

    answer = await asked.send_until_answered()

    assert is_replay(answer)
    assert answer.headers["x-tollgate-hold-id"] == stream.hold_id
    assert tokens_in(answer.body) == SLOW["tokens"]
    await assert_is_whole(customer, answer, tokens=SLOW["tokens"])


async def assert_is_whole(customer: Customer, answer: Answer, *, tokens: int) -> None:
    receipt = await assert_charged_once(customer, tokens=tokens)
    made = await customer.demo.generated(receipt["request_id"])
    assert made is not None
    assert (made.outcome, made.completion_tokens, receipt["outcome"]) == ("finished", tokens, "completed")
    assert receipt["id"] == answer.headers["x-tollgate-hold-id"]


# --- an answer that is not kept


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_is_too_large_to_be_kept_is_charged_once_and_then_refused(
    customer: Customer, stream: bool
) -> None:
    answers = TOO_MANY[stream]
    asked = KeyedRequest(customer, stream=stream, n=answers, max_tokens=LONGEST)

    first = await asked.send(tokens=LONGEST, token_latency_ms=0)
    again = await asked.send()

    assert first.status == 200
    assert len(first.body) > 4 * 1024 * 1024
    assert (again.status, again.error["code"], again.headers["x-should-retry"]) == (409, "conflict", "false")
    assert again.error["hold_id"] == first.headers["x-tollgate-hold-id"]
    assert (await assert_charged_once(customer, tokens=answers * LONGEST))["id"] == again.error["hold_id"]


# --- the other headers of a request


async def test_a_request_that_may_cost_so_much_is_given_again_as_it_was_fitted(customer: Customer) -> None:
    asked = KeyedRequest(customer)
    too_dear = await asked.send({"x-tollgate-max-cost": "0.000001"})
    most = {"x-tollgate-max-cost": "0.05"}

    first = await asked.send(most)
    again = await asked.send(most)

    assert too_dear.status == 402
    assert int(first.headers["x-tollgate-max-tokens"]) > 0
    assert_same_answer(first, again)
    assert again.headers["x-tollgate-max-tokens"] == first.headers["x-tollgate-max-tokens"]
    await assert_charged_once(customer)


async def test_a_quote_neither_takes_the_key_nor_is_it_given_for_the_answer(customer: Customer) -> None:
    asked, other = KeyedRequest(customer), KeyedRequest(customer)
    other.key = asked.key
    quoted = {"x-tollgate-dry-run": "true"}

    before = await other.send(quoted)
    first = await asked.send()
    afterwards = await asked.send(quoted)

    assert (before.status, afterwards.status) == (200, 200)
    assert not is_replay(first)
    assert not is_replay(afterwards)
    assert "choices" not in afterwards.json
    assert_same_answer(first, await asked.send())


# --- a worker that dies


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_whose_worker_was_killed_is_charged_for_the_answer_that_follows_only(
    customer: Customer, stream: bool
) -> None:
    demo = customer.demo
    asked = KeyedRequest(customer, stream=stream)
    asking = asyncio.create_task(asked.send(tokens=1000, token_latency_ms=20))
    await until(lambda: is_forwarded(customer))
    victims = demo.gate_workers
    for victim in victims:
        os.kill(victim, signal.SIGKILL)
    with pytest.raises(aiohttp.ClientError):
        await asking
    await demo.until_workers_serve(instead_of=victims)

    answer = await asked.send_until_answered()

    assert not is_replay(answer)
    lost, served = await customer.holds()
    assert served == answer.headers["x-tollgate-hold-id"]
    receipt = await customer.receipt(lost, status="expired")
    assert (receipt["status"], receipt["charged_cents"]) == ("expired", 0)
    assert_same_answer(answer, await asked.send())
    await assert_charged_once(customer)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_whose_hold_was_swept_while_its_worker_lived_on_is_charged_once(
    customer: Customer, stream: bool
) -> None:
    """The worker was cut off from Postgres for longer than two sweeps, and the key was free meanwhile."""
    asked = KeyedRequest(customer, stream=stream)
    serving = asyncio.create_task(asked.send(**SLOW))
    await until(lambda: is_forwarded(customer))
    [lost] = await customer.holds()
    await submit(customer.demo, ExpireHold(stream_id=customer.account_id, hold_id=lost, reason="worker_gone"))

    answer = await asked.send_until_answered()
    await serving

    assert not is_replay(answer)
    assert (await customer.receipt(lost, status="expired"))["charged_cents"] == 0
    assert_same_answer(answer, await asked.send())
    await assert_charged_once(customer)
