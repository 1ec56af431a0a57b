"""A worker that is told to stop finishes what it can within ``drain_s``, and charges what arrived of the rest."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import openai
import pytest
import pytest_asyncio

from tests.acceptance.asked import Asked, is_forwarded
from tests.acceptance.charges import assert_free, assert_paid, made_for
from tests.acceptance.client import Http, tokens_in
from tests.acceptance.customers import CHAT, MODEL, Customer, new_customer, request, unique_prompt, wishes
from tests.acceptance.running_demo import RunningDemo, until
from tests.acceptance.varied_demo import TOKENIZED, varied_demo

DRAIN_S = 4
FOREVER_S = 3600
TOKENS = 6


@pytest_asyncio.fixture(scope="module")
async def demo() -> AsyncIterator[RunningDemo]:
    """At its end the books are in order, and every worker that stopped did so by itself."""
    async with varied_demo(drain_s=DRAIN_S) as demo:
        yield demo
        await demo.assert_books_in_order()
        assert "Traceback" not in demo.output


@pytest_asyncio.fixture
async def customer(demo: RunningDemo) -> Customer:
    return await new_customer(demo)


@asynccontextmanager
async def stopped_meanwhile(demo: RunningDemo) -> AsyncIterator[None]:
    """Tell the worker to stop, do what is to be done while it does, and wait until the next one serves."""
    [worker] = workers = demo.gate_workers
    os.kill(worker, signal.SIGTERM)
    try:
        yield
    finally:
        await demo.until_workers_serve(instead_of=workers)
    assert f'"pid":{worker},"event":"worker.stopped"' in demo.output
    assert len(list((demo.files / "demo" / "write-ahead").iterdir())) == 1, (
        "the stopped worker left something to settle"
    )


async def no_connection_is_taken(demo: RunningDemo) -> None:
    """Wait until the worker has heard that it is to stop: it listens no more."""

    async def refused() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", demo.port)
        except ConnectionRefusedError:
            return True
        writer.close()
        return False

    await until(refused)


# --- what finishes in time


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_takes_no_longer_than_the_time_to_drain_is_finished(
    customer: Customer, stream: bool
) -> None:
    simulate = {"tokens": 50, "token_latency_ms": 10}
    asking = asyncio.create_task(customer.chat(stream=stream, simulate=simulate))
    await is_forwarded(customer)

    async with stopped_meanwhile(customer.demo):
        answer = await asking

    assert answer.status == 200
    assert answer.body.endswith(b"data: [DONE]\n\n" if stream else b"}")
    await assert_paid(customer, tokens=50, outcome="completed")


async def test_a_new_request_on_a_connection_that_was_kept_is_told_to_come_back(customer: Customer) -> None:
    demo = customer.demo
    other = await new_customer(demo)
    kept = Http(demo.information.server_url, one_connection=True)
    assert (await kept.post(CHAT, request(max_tokens=2), headers=customer.bearer())).status == 200
    placed = await customer.holds()
    silent = {"tokens": 1000, "silent_after": TOKENS}
    async with AsyncExitStack() as stopped, other.stream(simulate=silent) as stream:  # the stream is left first
        await Asked(stream).read_tokens(TOKENS)
        await stopped.enter_async_context(stopped_meanwhile(demo))
        await no_connection_is_taken(demo)
        refused = await kept.post(CHAT, request(), headers=customer.bearer())
        await kept.close()

    assert (refused.status, refused.error["code"]) == (503, "shutting_down")
    assert float(refused.headers["retry-after"]) > 0
    assert refused.headers["x-should-retry"] == "true"
    assert refused.headers["connection"] == "close"
    assert await customer.holds() == placed
    await assert_paid(other, tokens=TOKENS, outcome="client_gone")


# --- what does not


@pytest.mark.parametrize("model", [MODEL, TOKENIZED])
async def test_a_stream_that_takes_longer_ends_in_an_error_and_what_arrived_is_charged(
    customer: Customer, model: str
) -> None:
    usage = "normal" if model == MODEL else "final_only"
    simulate = {"tokens": 2000, "token_latency_ms": 20, "usage": usage}
    async with customer.stream(model=model, simulate=simulate) as stream:
        asked = Asked(stream)
        await asked.read_tokens(1)
        async with stopped_meanwhile(customer.demo):
            await asked.read_on()

    assert asked.received.count(b'"error"') == 1
    assert b"[DONE]" not in asked.received
    receipt = await assert_paid(customer, tokens=asked.tokens, outcome="cut_off")
    assert (await made_for(customer, receipt["request_id"])).outcome == "aborted"


@pytest.mark.money_bug(14, 42)
async def test_many_streams_that_take_longer_are_all_charged_for_what_arrived(demo: RunningDemo) -> None:
    customers = await asyncio.gather(*(new_customer(demo) for _ in range(10)))
    simulate = {"tokens": 2000, "token_latency_ms": 20}
    asking = [asyncio.create_task(customer.chat(stream=True, simulate=simulate)) for customer in customers]
    for customer in customers:
        await is_forwarded(customer)

    async with stopped_meanwhile(demo):
        answers = await asyncio.gather(*asking)

    for customer, answer in zip(customers, answers, strict=True):
        await assert_paid(customer, tokens=tokens_in(answer.body), outcome="cut_off")


async def test_the_sdk_raises_where_a_stream_takes_longer(customer: Customer) -> None:
    words = 0
    async with customer.async_sdk(max_retries=0) as client:
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=unique_prompt(),
            stream=True,
            extra_headers={"x-simulate": wishes(tokens=2000, token_latency_ms=20)},
        )

        async def read_words() -> None:
            nonlocal words
            async for chunk in stream:
                words += any(choice.delta.content for choice in chunk.choices)

        async with stopped_meanwhile(customer.demo):
            with pytest.raises(openai.APIError, match="charged"):
                await read_words()

    await assert_paid(customer, tokens=words, outcome="cut_off")


@pytest.mark.parametrize(
    "fields",
    [
        {"stream": False, "simulate": {"tokens": 2000, "token_latency_ms": 20}},
        {"stream": False, "simulate": {"hang": FOREVER_S}},
        {"stream": False, "simulate": {"tokens": TOKENS, "silent_after": 3}},
        {"stream": True, "simulate": {"hang": FOREVER_S}},
    ],
    ids=str,
)
async def test_what_takes_longer_and_has_sent_nothing_yet_is_refused_and_free(
    customer: Customer, fields: dict[str, Any]
) -> None:
    asking = asyncio.create_task(customer.chat(**fields))
    made = await is_forwarded(customer)

    async with stopped_meanwhile(customer.demo):
        answer = await asking

    assert answer.status in (502, 503)
    assert b"choices" not in answer.body
    receipt = await assert_free(customer, outcome="backend_failed")
    assert receipt["request_id"] == made["request_id"]
    assert (await made_for(customer, made["request_id"])).outcome == "aborted"
