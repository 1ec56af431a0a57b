"""Processes that die: workers, the backend, the demo itself, Postgres. In this order, on a demo of their own.

The one thing that a crash can take from a customer: a charge is committed before the last byte of its answer is
written, so that no answer is free. A worker that is killed between the two has charged for an answer whose end was
not seen. That can be no more than what it was writing at that moment.
"""

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from tests.acceptance.client import Answer
from tests.acceptance.conftest import breakable_demo
from tests.acceptance.customers import Customer, new_customer
from tests.acceptance.prices import price_in_cents
from tests.acceptance.running_demo import RunningDemo, until

CLIENTS = 16
WORKERS = 4


@pytest_asyncio.fixture(scope="module")
async def demo() -> AsyncIterator[RunningDemo]:
    async for demo in breakable_demo():
        yield demo


@pytest_asyncio.fixture
async def customer(demo: RunningDemo) -> Customer:
    return await new_customer(demo, cents=1000)


class Load:
    """Clients that ask one question after the other, plain and streamed, until told to stop."""

    def __init__(self, customer: Customer) -> None:
        self.answers: list[Answer] = []
        self.failures = 0
        self._customer = customer
        self._stopping = False
        self._tasks = [asyncio.create_task(self._client(stream=number % 2 == 0)) for number in range(CLIENTS)]

    async def _client(self, *, stream: bool) -> None:
        while not self._stopping:
            try:
                answer = await self._customer.chat(
                    stream=stream, max_tokens=30, simulate={"tokens": 20, "token_latency_ms": 10}
                )
            except aiohttp.ClientError:  # the worker died
                self.failures += 1
            else:
                self.answers.append(answer)
                if answer.status != 200:
                    await answer.wait_as_told()

    async def has_answers(self, count: int) -> None:
        async def enough() -> bool:
            return len(self.answers) >= count

        await until(enough)

    async def stop(self) -> None:
        self._stopping = True
        await asyncio.gather(*self._tasks)

    def served(self) -> set[str]:
        """The holds of the answers that arrived to their end."""
        return {
            answer.headers["x-tollgate-hold-id"]
            for answer in self.answers
            if answer.status == 200 and (answer.body.endswith((b"data: [DONE]\n\n", b"}")))
        }


@pytest.mark.money_bug(14, 16, 42)
async def test_a_killed_worker_leaves_no_hold_and_no_charge_for_what_was_not_served(customer: Customer) -> None:
    demo = customer.demo
    load = Load(customer)
    for killed in range(2):
        await load.has_answers(len(load.answers) + 2 * CLIENTS)
        victims = demo.gate_workers[killed % WORKERS : killed % WORKERS + 1]
        os.kill(victims[0], signal.SIGKILL)
        await demo.until_workers_serve(instead_of=victims)
    await load.has_answers(len(load.answers) + 2 * CLIENTS)
    await load.stop()

    account = await customer.when_no_hold_is_open()
    events = await customer.events()
    ends = {event["hold_id"]: event for event in events if event["type"] not in ("hold.placed",) and event["hold_id"]}
    settled = {hold_id for hold_id, event in ends.items() if event["type"] == "hold.settled"}
    assert Counter(answer.status for answer in load.answers) == {200: len(load.answers)}
    assert load.failures > 0
    assert load.served() <= settled, "an answer was free"
    assert len(settled - load.served()) <= load.failures, "a charge has no request that it could be for"
    assert {event["type"] for hold_id, event in ends.items() if hold_id not in settled} == {"hold.expired"}
    assert len(ends) == len([event for event in events if event["type"] == "hold.placed"])
    charges = [msgspec.json.decode(ends[hold_id]["payload"])["amount_microcents"] for hold_id in settled]
    assert account["spent_cents"] * 1_000_000 == sum(charges)
    for hold_id in settled:
        payload = msgspec.json.decode(ends[hold_id]["payload"])
        generated = await demo.generated(payload["request_id"])
        assert generated is not None
        assert payload["usage"]["output_tokens"] <= generated.completion_tokens
    await demo.assert_books_in_order()


@pytest.mark.money_bug(42)
async def test_a_worker_that_is_told_to_stop_finishes_its_streams(customer: Customer) -> None:
    demo = customer.demo
    workers = demo.gate_workers
    async with customer.stream(simulate={"tokens": 60, "token_latency_ms": 20}) as stream:
        await stream.content.readline()

        for worker in workers:
            os.kill(worker, signal.SIGTERM)
        rest = await stream.content.read()

    assert rest.endswith(b"data: [DONE]\n\n")
    assert rest.count(b'"delta":{"content":" ') == 59
    kind, settled = await customer.last_event()
    assert (kind, settled["usage"]["output_tokens"]) == ("hold.settled", 60)
    await demo.until_workers_serve(instead_of=workers)
    assert (await customer.chat()).status == 200


async def test_a_killed_background_process_comes_back_and_misses_nothing(customer: Customer) -> None:
    demo = customer.demo
    (killed,) = demo.children("worker")
    await customer.chat()

    os.kill(killed, signal.SIGKILL)
    await customer.chat()

    await customer.usage_logs(2)
    assert demo.children("worker") != [killed]
    await demo.assert_books_in_order()


@pytest_asyncio.fixture(scope="module")
async def extended(demo: RunningDemo) -> RunningDemo:
    """The demo with one more model, which has no price, and one more backend, where nothing listens."""
    with demo.settings_file.open("a") as settings:
        settings.write(
            '\n[[models]]\nid = "unpriced"\ncontext_length = 4096\n'
            '\n[[backends]]\nname = "dead"\nurl = "http://127.0.0.1:1"\nmodels = ["qwen3-32b", "deepseek-v3"]\n'
        )
    workers = demo.gate_workers
    for worker in workers:  # new settings are read by new workers
        os.kill(worker, signal.SIGTERM)
    await demo.until_workers_serve(instead_of=workers)
    return demo


@pytest.mark.money_bug(39)
async def test_a_model_without_a_price_is_refused_until_it_has_one(extended: RunningDemo) -> None:
    customer = await new_customer(extended)
    before = await customer.event_types()

    refused = [await customer.chat(model="unpriced"), await customer.chat(model="unpriced", stream=True)]
    assigned = await extended.command("prices", "assign", "qwen3-32b@1", "unpriced")

    assert {(answer.status, answer.error["code"]) for answer in refused} == {(404, "model_not_priced")}
    assert assigned.status == 0, assigned

    async def priced() -> bool:  # by every worker; but no backend serves it
        answers = await asyncio.gather(*(customer.chat(model="unpriced") for _ in range(20)))
        return {(answer.status, answer.error["code"]) for answer in answers} == {(503, "no_backend")}

    await until(priced)
    assert await customer.event_types() == before


@pytest.mark.money_bug(31)
async def test_a_dead_backend_is_made_up_for_by_another_one(extended: RunningDemo) -> None:
    customer = await new_customer(extended)

    answers = await asyncio.gather(*(customer.chat(stream=bool(n % 2), max_tokens=3) for n in range(40)))

    assert Counter(answer.status for answer in answers) == {200: 40}
    ends = Counter(await customer.event_types())
    assert (ends["hold.placed"], ends["hold.settled"]) == (40, 40)


@pytest.mark.money_bug(53)
async def test_without_any_backend_requests_are_refused_and_cost_nothing(customer: Customer) -> None:
    demo = customer.demo
    streaming = asyncio.create_task(customer.chat(stream=True, simulate={"tokens": 1000, "token_latency_ms": 50}))

    async def first_tokens() -> Any:
        running = (await demo.backend.get("/_simulator/requests?running=1")).json
        return running and running[0]["completion_tokens"] > 2 and running[0]

    made = await until(first_tokens)
    (backend,) = demo.children("simulated_backend")

    os.kill(backend, signal.SIGKILL)
    broken = await streaming
    answers = await asyncio.gather(*(customer.chat(stream=bool(n % 2)) for n in range(20)))

    assert b'"code":"backend_error"' in broken.body
    codes = {(answer.status, answer.error["type"], answer.error["code"]) for answer in answers}
    assert codes <= {(502, "service_unavailable", "backend_error"), (503, "service_unavailable", "no_backend")}
    account = await customer.when_no_hold_is_open()
    least = price_in_cents("qwen3-32b", input_tokens=made["prompt_tokens"], output_tokens=made["completion_tokens"] - 1)
    assert least <= account["spent_cents"] < 2 * least + 1

    async def reported_by_every_worker() -> bool:
        ready = await asyncio.gather(*(demo.http.get("/ready") for _ in range(20)))
        models = await asyncio.gather(*(demo.http.get("/v1/models") for _ in range(20)))
        statuses = {model["status"] for answer in models for model in answer.json["data"]}
        return {answer.status for answer in ready} == {503} and statuses == {"no_backend"}

    await until(reported_by_every_worker)
    late = await customer.chat()
    assert (late.status, late.error["code"]) == (503, "no_backend")
    assert float(late.headers["retry-after"]) > 0
    await demo.assert_books_in_order()


@pytest_asyncio.fixture(scope="module")
async def successor(demo: RunningDemo) -> AsyncIterator[RunningDemo]:
    """The demo that is started where the first one was killed."""
    demo.process.send_signal(signal.SIGKILL)

    async def all_gone() -> bool:
        return demo.directory.processes() == []

    await until(all_gone)
    successor = await RunningDemo.start(demo.directory)
    yield successor
    await successor.kill()


async def test_a_killed_demo_takes_its_processes_with_it_and_another_one_starts_in_its_place(
    successor: RunningDemo,
) -> None:
    customer = await new_customer(successor)

    assert (await customer.chat()).status == 200
    await successor.assert_books_in_order()


@pytest.mark.money_bug(17, 19, 43)
async def test_a_killed_postgres_comes_back_and_until_then_nothing_is_forwarded_unpaid(
    successor: RunningDemo,
) -> None:
    customer = await new_customer(successor, cents=1000)
    killed = successor.postmaster
    load = Load(customer)
    await load.has_answers(2 * CLIENTS)

    os.kill(killed, signal.SIGKILL)

    async def not_ready() -> bool:
        return (await successor.http.get("/ready")).status == 503

    async def another_one_runs() -> bool:
        return successor.postmaster not in (0, killed) and not await not_ready()

    await until(not_ready)
    await until(another_one_runs)
    await load.has_answers(len(load.answers) + 4 * CLIENTS)
    await load.stop()
    await customer.when_no_hold_is_open()
    forwarded = {record["request_id"] for record in (await successor.backend.get("/_simulator/requests")).json}
    events = await customer.events()
    paid = await successor.fetch("SELECT payload ->> 'request_id' AS id FROM events WHERE type = 'hold.placed'")
    settled = {event["hold_id"] for event in events if event["type"] == "hold.settled"}
    assert forwarded <= {row["id"] for row in paid}
    assert load.failures == 0
    assert load.served() == settled
    assert {answer.status for answer in load.answers} <= {200, 503}
    await successor.assert_books_in_order()


@pytest.mark.money_bug(43)
async def test_while_postgres_is_away_everybody_is_told_to_come_back(successor: RunningDemo) -> None:
    customer = await new_customer(successor, cents=1000)
    load = Load(customer)
    await load.has_answers(2 * CLIENTS)

    os.kill(successor.postmaster, signal.SIGKILL)
    await load.has_answers(len(load.answers) + 4 * CLIENTS)
    await load.stop()

    refused = [answer for answer in load.answers if answer.status != 200]
    assert {(answer.status, answer.error["code"]) for answer in refused} <= {(503, "ledger_unavailable")}
    assert all(float(answer.headers["retry-after"]) > 0 for answer in refused)


async def test_ctrl_c_lets_a_stream_finish_and_still_leaves_nothing_behind(successor: RunningDemo) -> None:
    customer = await new_customer(successor)
    async with customer.stream(simulate={"tokens": 40, "token_latency_ms": 20}) as stream:
        await stream.content.readline()

        successor.process.send_signal(signal.SIGINT)

        assert (await stream.content.read()).endswith(b"data: [DONE]\n\n")
    assert await successor.stop() == 0
    assert successor.directory.processes() == []
    # What was killed with -9 could not tidy up after itself.
    assert [path for path in successor.directory.leavings() if "tollgate-metrics" not in path] == []
