"""What a request costs whose worker, or whose Postgres, dies under it, as ``docs/endings.md`` promises it."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.acceptance.asked import Asked, is_forwarded
from tests.acceptance.charges import assert_paid, made_for
from tests.acceptance.client import comments_of
from tests.acceptance.customers import Customer, new_customer
from tests.acceptance.running_demo import RunningDemo, until
from tests.acceptance.varied_demo import DRAINED, SLICED, TOKENIZED, varied_demo

TOKENS = 6
FOREVER_S = 3600


@pytest_asyncio.fixture(scope="module")
async def demo() -> AsyncIterator[RunningDemo]:
    """At its end the books are in order."""
    async with varied_demo() as demo:
        yield demo
        await demo.assert_books_in_order()


@pytest_asyncio.fixture
async def customer(demo: RunningDemo) -> Customer:
    return await new_customer(demo)


@asynccontextmanager
async def killed_meanwhile(demo: RunningDemo) -> AsyncIterator[None]:
    """Kill the worker, do what is to be done while it is dead, and wait for the next one."""
    workers = demo.gate_workers
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    yield
    await demo.until_workers_serve(instead_of=workers)


async def kill_postgres(demo: RunningDemo) -> None:
    """And wait until the worker has noticed."""
    os.kill(demo.postmaster, signal.SIGKILL)

    async def noticed() -> bool:
        return (await demo.http.get("/ready")).status == 503

    await until(noticed)


@asynccontextmanager
async def without_postgres(demo: RunningDemo) -> AsyncIterator[None]:
    """Postgres is dead, and stays so: who would start it again is stopped."""
    demo.process.send_signal(signal.SIGSTOP)
    try:
        await kill_postgres(demo)
        yield
    finally:
        demo.process.send_signal(signal.SIGCONT)


async def until_ready(demo: RunningDemo) -> None:
    async def ready() -> bool:
        try:
            return (await demo.http.get("/ready")).status == 200
        except aiohttp.ClientError:
            return False

    await until(ready)


# --- the worker


async def test_a_stream_whose_worker_is_killed_is_charged_for_what_had_arrived(customer: Customer) -> None:
    async with customer.stream(simulate={"tokens": 1000, "silent_after": TOKENS, "token_latency_ms": 1}) as stream:
        asked = Asked(stream)
        await asked.read_tokens(TOKENS)
        async with killed_meanwhile(customer.demo):
            await asked.read_on()

    assert asked.tokens == TOKENS
    assert b"[DONE]" not in asked.received
    receipt = await assert_paid(customer, tokens=TOKENS, outcome="cut_off")
    assert (await made_for(customer, receipt["request_id"])).outcome == "aborted"


@pytest.mark.money_bug(42)
async def test_running_streams_whose_worker_is_killed_are_charged_for_what_arrived_to_the_last_token(
    demo: RunningDemo,
) -> None:
    """The one that was on its way is charged where the worker lived to write it down."""
    customers = await asyncio.gather(*(new_customer(demo) for _ in range(8)))
    reading: list[Asked] = []

    async def read(customer: Customer) -> Asked:
        async with customer.stream(simulate={"tokens": 2000, "token_latency_ms": 20}) as stream:
            asked = Asked(stream)
            await asked.read_tokens(5)
            reading.append(asked)
            await asked.read_on()
        return asked

    readers = [asyncio.create_task(read(customer)) for customer in customers]

    async def all_read() -> bool:
        return len(reading) == len(readers)

    await until(all_read)
    async with killed_meanwhile(demo):
        streams = await asyncio.gather(*readers)

    for customer, asked in zip(customers, streams, strict=True):
        charged = (await customer.receipt(asked.hold_id))["charges"][0]["usage"]["output_tokens"]
        assert asked.tokens - 1 <= charged <= asked.tokens
        await assert_paid(customer, tokens=charged, outcome="cut_off")


@pytest.mark.parametrize(
    "request_fields",
    [
        {"stream": False, "simulate": {"tokens": 1000, "token_latency_ms": 20}},
        {"stream": False, "simulate": {"hang": FOREVER_S}},
        {"stream": True, "simulate": {"hang": FOREVER_S}},
        {"stream": True, "model": TOKENIZED, "simulate": {"silent_after": TOKENS, "usage": "final_only"}},
        {"stream": True, "model": DRAINED, "simulate": {"silent_after": TOKENS, "usage": "final_only"}},
    ],
    ids=str,
)
async def test_a_request_whose_worker_is_killed_is_free_where_nobody_counted_what_had_arrived(
    customer: Customer, request_fields: dict[str, Any]
) -> None:
    asking = asyncio.create_task(customer.chat(**request_fields))
    made = await is_forwarded(customer)

    async with killed_meanwhile(customer.demo):
        await asyncio.gather(asking, return_exceptions=True)

    [hold_id] = await customer.holds()
    receipt = await customer.receipt(hold_id, status="expired")
    assert (receipt["status"], receipt["outcome"], receipt["charged_cents"]) == ("expired", "worker_gone", 0)
    assert (await customer.when_no_hold_is_open())["spent_cents"] == 0
    assert (await made_for(customer, made["request_id"])).outcome == "aborted"


# --- Postgres


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_under_which_postgres_dies_comes_to_its_end_and_is_charged(
    customer: Customer, stream: bool
) -> None:
    simulate = {"tokens": 50, "token_latency_ms": 20}
    asking = asyncio.create_task(customer.chat(stream=stream, simulate=simulate))
    await is_forwarded(customer)

    await kill_postgres(customer.demo)
    answer = await asking

    assert answer.status == 200
    assert answer.body.endswith(b"data: [DONE]\n\n" if stream else b"}")
    await until_ready(customer.demo)
    await assert_paid(customer, tokens=50, outcome="completed")


@pytest.mark.money_bug(17, 42)
async def test_answers_that_postgres_stays_away_from_go_out_and_their_charge_survives_the_worker_too(
    demo: RunningDemo,
) -> None:
    """Until Postgres is back nothing more is forwarded."""
    customers = [await new_customer(demo) for _ in range(2)]
    simulate = {"tokens": 50, "token_latency_ms": 20}
    asking = [
        asyncio.create_task(customer.chat(stream=stream, simulate=simulate))
        for customer, stream in zip(customers, (False, True), strict=True)
    ]
    for customer in customers:
        await is_forwarded(customer)

    async with without_postgres(demo):
        forwarded = await demo.count_forwarded()
        refused = await customers[0].chat()
        plain, streamed = await asyncio.gather(*asking)
        assert await demo.count_forwarded() == forwarded
        workers = demo.gate_workers
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
    await demo.until_workers_serve(instead_of=workers)
    await until_ready(demo)

    assert (refused.status, refused.error["code"]) == (503, "ledger_unavailable")
    assert float(refused.headers["retry-after"]) > 0
    assert (plain.status, plain.json["usage"]["completion_tokens"]) == (200, 50)
    assert streamed.body.endswith(b"data: [DONE]\n\n")
    assert "x-tollgate-cost-cents" not in plain.headers
    assert comments_of(streamed.body) == {}
    for customer in customers:
        await assert_paid(customer, tokens=50, outcome="completed")


@pytest.mark.money_bug(19)
async def test_a_charge_that_postgres_was_away_for_follows_when_it_is_back(customer: Customer) -> None:
    demo = customer.demo
    asking = asyncio.create_task(customer.chat(stream=True, simulate={"tokens": 50, "token_latency_ms": 20}))
    await is_forwarded(customer)

    async with without_postgres(demo):
        answer = await asking
    await until_ready(demo)

    assert answer.body.endswith(b"data: [DONE]\n\n")
    await assert_paid(customer, tokens=50, outcome="completed")


async def test_a_stream_that_postgres_cannot_cover_any_further_ends_and_what_arrived_is_charged(
    customer: Customer,
) -> None:
    demo = customer.demo
    simulate = {"tokens": 2000, "token_latency_ms": 20}
    async with customer.stream(model=SLICED, max_tokens=2000, simulate=simulate) as stream:
        asked = Asked(stream)
        await asked.read_tokens(1)
        async with without_postgres(demo):
            await asked.read_on()
    await until_ready(demo)

    assert b'"code":"ledger_unavailable"' in asked.received
    assert b"[DONE]" not in asked.received
    receipt = await assert_paid(customer, tokens=asked.tokens, outcome="not_covered")
    assert receipt["charged_cents"] <= receipt["held_cents"]
