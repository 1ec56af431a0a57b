"""A request with an ``Idempotency-Key`` is served and charged once, however often and by however many it is sent.

The demo has several workers, and each try comes on a connection of its own: what one worker is at, another must know.
"""

import asyncio
import secrets
from typing import Any

import pytest

from tests.acceptance.customers import MODEL, Customer, gather, new_customer, unique_prompt
from tests.acceptance.keyed import (
    SLOW,
    KeyedRequest,
    assert_charged_once,
    assert_same_answer,
    is_forwarded,
    is_replay,
    is_told_to_wait,
)
from tests.acceptance.running_demo import RunningDemo, until

MANY = 20
#: A model's longest answer, and how many of it are more than what is kept.
LONGEST = 8192
TOO_MANY = {False: 128, True: 8}  # by whether it is a stream, whose words come in an event each


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
