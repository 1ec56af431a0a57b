"""A try under an ``Idempotency-Key`` that failed, broke off, or lost its client or its worker: the next one is served,
or given what there is, and of all of them one is charged at most.
"""

import asyncio
import os
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
from tests.acceptance.customers import Customer, new_customer
from tests.acceptance.keyed import (
    SLOW,
    TOKENS,
    KeyedRequest,
    assert_charged_once,
    assert_same_answer,
    is_forwarded,
    is_replay,
)
from tests.acceptance.running_demo import RunningDemo, until


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
