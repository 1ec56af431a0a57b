"""Streams are held in slices: a balance is good for what they use, and not only for the most that they could."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from tests.acceptance.asked import Asked
from tests.acceptance.charges import assert_free, assert_paid, made_for
from tests.acceptance.client import chunks_of, comments_of, tokens_in
from tests.acceptance.customers import CHAT, MODEL, Customer, new_customer, request, unique_prompt, wishes
from tests.acceptance.prices import MICROCENT, price_in_cents
from tests.acceptance.running_demo import RunningDemo
from tests.acceptance.varied_demo import MAX_TOKENS, SLICE_TOKENS, SLICED, varied_demo

#: A stream of this length grows its hold three times.
TOKENS = 200
STREAMS = 50
#: Longer than any balance here pays for.
ENDLESS: dict[str, Any] = {"model": SLICED, "max_tokens": MAX_TOKENS}
RUNS_ON: dict[str, Any] = {"tokens": MAX_TOKENS, "token_latency_ms": 1}


@pytest_asyncio.fixture(scope="module")
async def demo() -> AsyncIterator[RunningDemo]:
    """At its end the books are in order."""
    async with varied_demo() as demo:
        yield demo
        await demo.assert_books_in_order()
        assert "Traceback" not in demo.output


def output(tokens: int) -> Decimal:
    """What so many tokens of an answer cost, in cents."""
    return price_in_cents(MODEL, input_tokens=0, output_tokens=tokens)


async def full_hold(demo: RunningDemo, **fields: Any) -> Decimal:
    """The most that such a request can cost, in cents, as its quote says."""
    customer = await new_customer(demo, cents=0)
    headers = {**customer.bearer(), "x-tollgate-dry-run": "true"}
    quote = await demo.http.post(CHAT, request(**fields), headers=headers)
    assert quote.status == 200, quote
    return Decimal(quote.json["max_hold_cents"])


async def first_hold(demo: RunningDemo, **fields: Any) -> Decimal:
    """What such a request must be able to set aside before it is forwarded, in cents, as its refusal says."""
    refused = await (await new_customer(demo, cents=0)).chat(**fields)
    assert refused.status == 402, refused
    return Decimal(refused.error["needed_cents"])


async def assert_never_overdrawn(customer: Customer) -> None:
    """After no event was more held than there was."""
    events = await customer.events()
    assert min(e["balance_microcents"] - e["held_microcents"] for e in events if e["held_microcents"] is not None) >= 0


def reasons_in(stream: bytes) -> list[str]:
    """Why a stream says that it stops early."""
    return [chunk["tollgate"]["reason"] for chunk in chunks_of(stream) if "tollgate" in chunk]


# --- many at once


@pytest.mark.money_bug(12)
async def test_streams_run_to_their_end_on_a_balance_that_pays_for_what_they_use(demo: RunningDemo) -> None:
    full = await full_hold(demo, **ENDLESS, stream=True)
    customer = await new_customer(demo, cents=Decimal("2.6") * full)
    simulate = {"tokens": TOKENS, "token_latency_ms": 5}

    answers = await asyncio.gather(*(customer.chat(**ENDLESS, stream=True, simulate=simulate) for _ in range(STREAMS)))

    account = await customer.when_no_hold_is_open()
    costs = [comments_of(answer.body)["x-tollgate-cost-cents"] for answer in answers]
    assert {tokens_in(answer.body) for answer in answers} == {TOKENS}
    assert all(answer.body.endswith(b"data: [DONE]\n\n") for answer in answers)
    assert account["spent_cents"] == sum(costs) >= STREAMS * output(TOKENS)
    assert account["debt_cents"] == 0
    await assert_never_overdrawn(customer)


async def test_plain_answers_are_held_in_full(demo: RunningDemo) -> None:
    """On the same balance only two are let through at once: of them nothing is known until they are there."""
    full = await full_hold(demo, **ENDLESS)
    customer = await new_customer(demo, cents=Decimal("2.6") * full)
    simulate = {"tokens": TOKENS, "token_latency_ms": 5}

    answers = await asyncio.gather(*(customer.chat(**ENDLESS, simulate=simulate) for _ in range(20)))

    placed = [event for event in await customer.events() if event["type"] == "hold.placed"]
    amounts = {msgspec.json.decode(event["payload"])["amount_microcents"] * MICROCENT for event in placed}
    assert amounts == {full}
    assert {answer.status for answer in answers} == {200, 402}
    await assert_never_overdrawn(customer)


async def test_a_hold_begins_with_one_slice_and_grows_by_slices_while_the_stream_runs(demo: RunningDemo) -> None:
    customer = await new_customer(demo)

    answer = await customer.chat(**ENDLESS, stream=True, simulate={"tokens": TOKENS, "token_latency_ms": 1})

    events = await customer.events()
    extended = [msgspec.json.decode(event["payload"]) for event in events if event["type"] == "hold.extended"]
    receipt = await assert_paid(customer, tokens=TOKENS, outcome="completed")
    most = output(TOKENS + 2 * SLICE_TOKENS)
    assert len(extended) >= (TOKENS - SLICE_TOKENS) // SLICE_TOKENS
    assert all(0 <= event["amount_microcents"] * MICROCENT <= output(2 * SLICE_TOKENS) for event in extended)
    assert receipt["charged_cents"] <= receipt["held_cents"] <= most + await first_hold(demo, **ENDLESS, stream=True)
    assert answer.headers.get("x-tollgate-max-tokens") is None


# --- a balance that runs out


@pytest.mark.money_bug(22)
@pytest.mark.parametrize(
    ("fields", "simulate"),
    [({}, {}), ({"n": 2}, {}), ({}, {"stream_interval": 7}), ({"n": 2}, {"stream_interval": 7})],
    ids=str,
)
async def test_a_stream_whose_balance_runs_out_ends_as_at_its_limit_and_all_that_came_is_paid(
    demo: RunningDemo, fields: dict[str, Any], simulate: dict[str, Any]
) -> None:
    first = await first_hold(demo, **ENDLESS, **fields, stream=True)
    customer = await new_customer(demo, cents=first + output(100))
    options = {"stream": True, "stream_options": {"include_usage": True}}

    answer = await customer.chat(**ENDLESS, **fields, **options, simulate={**RUNS_ON, **simulate})

    tokens = tokens_in(answer.body)
    *_, ended, usage = chunks_of(answer.body)
    assert answer.status == 200
    assert len(reasons_in(answer.body)) == 1
    assert [choice["finish_reason"] for choice in ended["choices"]] == ["length"] * fields.get("n", 1)
    assert "can only afford" not in ended["tollgate"]["message"]
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], tokens)
    assert tokens >= SLICE_TOKENS
    receipt = await assert_paid(customer, tokens=tokens, outcome="out_of_money")
    assert comments_of(answer.body)["x-tollgate-cost-cents"] == receipt["charged_cents"]
    assert (await made_for(customer, receipt["request_id"])).outcome == "aborted"
    assert await customer.balance() >= 0
    await assert_never_overdrawn(customer)


async def test_without_asking_for_usage_a_stream_whose_balance_runs_out_ends_without_it(demo: RunningDemo) -> None:
    customer = await new_customer(demo, cents=await first_hold(demo, **ENDLESS, stream=True) + output(100))

    answer = await customer.chat(**ENDLESS, stream=True, simulate=RUNS_ON)

    assert not any(chunk.get("usage") for chunk in chunks_of(answer.body))
    await assert_paid(customer, tokens=tokens_in(answer.body), outcome="out_of_money")


@pytest.mark.parametrize("with_usage", [False, True])
async def test_the_sdk_reads_a_stream_whose_balance_runs_out_without_an_error(
    demo: RunningDemo, with_usage: bool
) -> None:
    customer = await new_customer(demo, cents=await first_hold(demo, **ENDLESS, stream=True) + output(100))
    async with customer.async_sdk(max_retries=0) as client:
        stream = await client.chat.completions.create(
            **ENDLESS,
            messages=unique_prompt(),
            stream=True,
            stream_options={"include_usage": with_usage},
            extra_headers={"x-simulate": wishes(**RUNS_ON)},
        )
        chunks = [chunk async for chunk in stream]

    finishes = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    words = sum(bool(choice.delta.content) for chunk in chunks for choice in chunk.choices)
    usages = [chunk.usage.completion_tokens for chunk in chunks if chunk.usage is not None]
    assert finishes == ["length"]
    assert usages == ([words] if with_usage else [])
    await assert_paid(customer, tokens=words, outcome="out_of_money")


@pytest.mark.money_bug(22)
async def test_many_streams_that_share_a_balance_which_runs_out_pay_for_all_that_came(demo: RunningDemo) -> None:
    """What one needs another one holds: that ends a stream too, and its reason says so."""
    first = await first_hold(demo, **ENDLESS, stream=True)
    customer = await new_customer(demo, cents=10 * first)

    answers = await asyncio.gather(*(customer.chat(**ENDLESS, stream=True, simulate=RUNS_ON) for _ in range(10)))

    account = await customer.when_no_hold_is_open()
    served = [answer for answer in answers if answer.status == 200]
    assert {answer.status for answer in answers} <= {200, 402}
    assert {reason for answer in served for reason in reasons_in(answer.body)} <= {
        "insufficient_funds",
        "holds_in_flight",
    }
    for answer in served:
        made = await made_for(customer, answer.headers["x-request-id"])
        cost = price_in_cents(MODEL, input_tokens=made.prompt_tokens, output_tokens=tokens_in(answer.body))
        assert comments_of(answer.body)["x-tollgate-cost-cents"] == cost
    assert account["spent_cents"] == sum(comments_of(answer.body)["x-tollgate-cost-cents"] for answer in served)
    assert account["debt_cents"] == 0
    await assert_never_overdrawn(customer)


@pytest.mark.money_bug(53)
@pytest.mark.parametrize(("limit", "reason"), [("balance", "insufficient_funds"), ("budget", "budget_exceeded")])
async def test_a_stream_that_is_alone_is_told_that_it_is_the_money_that_ran_out(
    demo: RunningDemo, limit: str, reason: str
) -> None:
    """The reason holds_in_flight says that the request may succeed once other holds end. There are none."""
    money = await first_hold(demo, **ENDLESS, stream=True) + output(100)
    customer = await new_customer(demo, **{"cents" if limit == "balance" else "monthly_budget_cents": money})

    answer = await customer.chat(**ENDLESS, stream=True, simulate=RUNS_ON)

    assert reasons_in(answer.body) == [reason]


@pytest.mark.money_bug(22)
async def test_a_stream_of_a_backend_that_goes_on_beyond_its_limit_ends_at_it(demo: RunningDemo) -> None:
    customer = await new_customer(demo)

    answer = await customer.chat(model=SLICED, max_tokens=40, stream=True, simulate={**RUNS_ON, "overrun": 500})

    assert chunks_of(answer.body)[-1]["choices"][0]["finish_reason"] == "length"
    assert reasons_in(answer.body) == ["max_tokens"]
    await assert_paid(customer, tokens=40, outcome="too_long")


async def test_a_stream_whose_keys_budget_runs_out_ends_in_the_same_way(demo: RunningDemo) -> None:
    first = await first_hold(demo, **ENDLESS, stream=True)
    customer = await new_customer(demo, monthly_budget_cents=first + output(100))

    answer = await customer.chat(**ENDLESS, stream=True, simulate=RUNS_ON)

    assert chunks_of(answer.body)[-1]["choices"][0]["finish_reason"] == "length"
    receipt = await assert_paid(customer, tokens=tokens_in(answer.body), outcome="out_of_money")
    assert receipt["charged_cents"] <= first + output(100)


# --- a backend that does not count along


async def test_a_stream_that_is_not_counted_along_is_held_in_full_before_a_word_of_it_passes(
    demo: RunningDemo,
) -> None:
    full = await full_hold(demo, **ENDLESS, stream=True)
    customer = await new_customer(demo)
    simulate = {"tokens": TOKENS, "token_latency_ms": 20, "usage": "final_only"}

    async with customer.stream(**ENDLESS, simulate=simulate) as stream:
        asked = Asked(stream)
        await asked.read_tokens(1)
        held = (await customer.account())["held_cents"]
        await asked.read_on()

    assert held == full
    assert asked.received.endswith(b"data: [DONE]\n\n")
    await assert_paid(customer, tokens=TOKENS, outcome="completed")


async def test_a_stream_that_is_not_counted_along_and_cannot_be_held_in_full_does_not_pass(demo: RunningDemo) -> None:
    full = await full_hold(demo, **ENDLESS, stream=True)
    customer = await new_customer(demo, cents=full / 2)
    simulate = {"tokens": TOKENS, "token_latency_ms": 1, "usage": "final_only"}

    answer = await customer.chat(**ENDLESS, stream=True, simulate=simulate)

    assert tokens_in(answer.body) == 0
    assert b'"code":"payment_required"' in answer.body
    await assert_free(customer, outcome="out_of_money")


# --- the most that a request may cost


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("choices", [1, 2])
async def test_a_request_costs_no_more_than_it_says_it_may(demo: RunningDemo, stream: bool, choices: int) -> None:
    cap = Decimal("0.05")
    customer = await new_customer(demo)
    fields = {**ENDLESS, "n": choices, "stream": stream}
    headers = {**customer.bearer(**{**RUNS_ON, "token_latency_ms": 0}), "x-tollgate-max-cost": str(cap)}

    answer = await demo.http.post(CHAT, request(**fields), headers=headers)

    clamped = int(answer.headers["x-tollgate-max-tokens"])
    receipt = await assert_paid(customer, tokens=choices * clamped, outcome="completed")
    assert 0 < clamped < MAX_TOKENS
    assert receipt["charged_cents"] <= receipt["held_cents"] <= cap
    assert cap < await full_hold(demo, **{**fields, "max_tokens": clamped + 1})


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_may_cost_what_it_can_cost_is_not_clamped(demo: RunningDemo, stream: bool) -> None:
    customer = await new_customer(demo)
    cap = await full_hold(demo, max_tokens=5, stream=stream)
    headers = {**customer.bearer(), "x-tollgate-max-cost": str(cap)}

    answer = await demo.http.post(CHAT, request(max_tokens=5, stream=stream), headers=headers)

    assert answer.status == 200
    assert "x-tollgate-max-tokens" not in answer.headers


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_may_cost_less_than_one_token_is_refused(demo: RunningDemo, stream: bool) -> None:
    customer = await new_customer(demo)
    headers = {**customer.bearer(), "x-tollgate-max-cost": "0.000001"}

    answer = await demo.http.post(CHAT, request(stream=stream), headers=headers)

    assert (answer.status, answer.error["code"], answer.error["reason"]) == (402, "payment_required", "max_cost")
    assert answer.headers["x-should-retry"] == "false"
    assert await customer.holds() == []


@pytest.mark.parametrize("amount", ["-1", "much", "NaN", "1e99", "0.0000001", ""])
async def test_an_amount_that_is_none_is_refused(demo: RunningDemo, amount: str) -> None:
    customer = await new_customer(demo)

    answer = await demo.http.post(CHAT, request(), headers={**customer.bearer(), "x-tollgate-max-cost": amount})

    assert (answer.status, answer.error["param"]) == (400, "x-tollgate-max-cost")
    assert await customer.holds() == []


async def test_a_plain_request_that_names_its_limit_is_fitted_to_the_balance_too(demo: RunningDemo) -> None:
    full = await full_hold(demo, **ENDLESS)
    customer = await new_customer(demo, cents=full / 2)
    headers = {**customer.bearer(**{**RUNS_ON, "token_latency_ms": 0}), "x-tollgate-max-cost": str(full)}

    answer = await demo.http.post(CHAT, request(**ENDLESS), headers=headers)

    clamped = int(answer.headers["x-tollgate-max-tokens"])
    receipt = await assert_paid(customer, tokens=clamped, outcome="completed")
    assert receipt["held_cents"] <= full / 2
    assert full / 2 < await full_hold(demo, **{**ENDLESS, "max_tokens": clamped + 1})


# --- what a refusal says


async def test_a_refusal_says_what_was_needed_what_there_is_and_what_it_would_pay_for(demo: RunningDemo) -> None:
    full = await full_hold(demo, **ENDLESS)
    customer = await new_customer(demo, cents=full / 2)

    refused = await customer.chat(**ENDLESS)

    message = refused.error["message"]
    needed, available = (format((amount / 100).normalize(), "f") for amount in (full, full / 2))
    start, _, afford = message.partition(" tokens, but can only afford ")
    affordable = int(afford.removesuffix("."))
    assert start == (
        f"needs up to {needed} USD, available {available} USD (held 0.00 USD). You requested up to {MAX_TOKENS}"
    )
    assert await full_hold(demo, **{**ENDLESS, "max_tokens": affordable}) <= full / 2
    assert await full_hold(demo, **{**ENDLESS, "max_tokens": affordable + 1}) > full / 2
    assert (await customer.chat(**{**ENDLESS, "max_tokens": affordable})).status == 200
