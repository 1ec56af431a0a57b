"""A fresh demo does what it prints, by curl and by the OpenAI SDK, and charges exactly the published price."""

import asyncio
import re
import sys
from decimal import Decimal
from typing import Any

import msgspec
import openai
import pytest

from tests.acceptance.client import chunks_of, comments_of
from tests.acceptance.customers import MODEL, Customer, unique_prompt, wishes
from tests.acceptance.prices import price_in_cents, price_of_usage
from tests.acceptance.running_demo import RunningDemo

WITH_USAGE: Any = {"include_usage": True}


async def run(*command: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode()


async def balance_of_demo(demo: RunningDemo) -> Decimal:
    headers = {"Authorization": f"Bearer {demo.information.api_key}"}
    answer = await demo.http.get("/v1/users/me", headers=headers)
    return Decimal(answer.json["credit_balance_cents"])


async def test_the_printed_curl_answers_and_the_balance_falls_by_exactly_its_price(demo: RunningDemo) -> None:
    curls = re.findall(r"^  (curl (?:.*\\\n)*.*)$", demo.output, re.MULTILINE)
    before = await balance_of_demo(demo)

    answer = msgspec.json.decode(await run("sh", "-c", curls[0]))
    user = msgspec.json.decode(await run("sh", "-c", curls[1]))

    assert answer["choices"][0]["message"]["content"]
    assert before - price_of_usage(answer["model"], answer["usage"]) == Decimal(str(user["credit_balance_cents"]))


async def test_the_printed_sdk_snippet_runs_as_it_stands(demo: RunningDemo) -> None:
    snippet = demo.output[demo.output.index("  from openai") : demo.output.index("\nCtrl-C")]
    before = await balance_of_demo(demo)

    printed = await run(sys.executable, "-c", "\n".join(line.strip() for line in snippet.splitlines()))

    tokens = {name: int(count) for name, count in re.findall(r"(\w+_tokens)=(\d+)", printed)}
    price = price_in_cents(
        demo.information.models[0],
        input_tokens=tokens["prompt_tokens"],
        cached_input_tokens=tokens["cached_tokens"],
        output_tokens=tokens["completion_tokens"],
    )
    assert before - price == await balance_of_demo(demo)


async def test_the_command_line_shows_the_same_account_as_the_operators_endpoint(customer: Customer) -> None:
    await customer.chat()

    shown = await customer.demo.command("account", "show", customer.account_id)

    account = await customer.account()
    (grant,) = account["credit_grants"]
    dollars = f"{(account['posted_cents'] / 100).normalize():f} USD"
    assert shown.out == (
        f"{customer.account_id}  posted {dollars}  held 0.00 USD  available {dollars}\n"
        f"  grant {grant['id']}  {dollars}  priority 50\n"
    )


@pytest.mark.parametrize("model", ["qwen3-32b", "deepseek-v3"])
async def test_a_plain_answer_costs_the_price_of_its_usage_and_says_so(customer: Customer, model: str) -> None:
    answer = await customer.chat(model=model)

    cost = price_of_usage(model, answer.json["usage"])
    hold_id = answer.headers["x-tollgate-hold-id"]
    assert Decimal(answer.headers["x-tollgate-cost-cents"]) == cost
    assert Decimal(answer.headers["x-tollgate-balance-cents"]) == 100 - cost == await customer.balance()
    assert [event["hold_id"] for event in await customer.events() if event["hold_id"]] == [hold_id, hold_id]
    generated = await customer.demo.generated(answer.headers["x-request-id"])
    assert generated is not None
    assert generated.completion_tokens == answer.json["usage"]["completion_tokens"]


@pytest.mark.money_bug(35)
async def test_cached_prompt_tokens_cost_their_own_price(customer: Customer) -> None:
    messages = [{"role": "user", "content": "Remember this. " * 50}, *unique_prompt()]
    first = await customer.chat(messages=messages)

    second = await customer.chat(messages=messages)

    assert second.json["usage"]["prompt_tokens_details"]["cached_tokens"] > 0
    costs = [price_of_usage(MODEL, answer.json["usage"]) for answer in (first, second)]
    assert costs[1] < costs[0]
    assert 100 - sum(costs) == await customer.balance()


async def test_a_stream_tells_its_cost_and_balance_in_comments_before_its_end(customer: Customer) -> None:
    answer = await customer.chat(stream=True)

    generated = await customer.demo.generated(answer.headers["x-request-id"])
    assert generated is not None
    cost = price_in_cents(MODEL, input_tokens=generated.prompt_tokens, output_tokens=generated.completion_tokens)
    assert comments_of(answer.body) == {"x-tollgate-cost-cents": cost, "x-tollgate-balance-cents": 100 - cost}
    end = answer.body[answer.body.index(b": x-tollgate-cost-cents") :]
    assert [line[:5] for line in end.splitlines() if line.startswith(b"data")] == [b"data:"]
    assert answer.headers["x-tollgate-hold-id"]
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert 100 - cost == await customer.balance()


async def test_a_stream_arrives_while_it_is_generated(customer: Customer) -> None:
    async with customer.stream(simulate={"tokens": 1000, "token_latency_ms": 50}) as stream:
        assert b'"role":"assistant"' in await stream.content.readline()

        running = await customer.demo.backend.get(f"/_simulator/requests/{stream.headers['x-request-id']}")

    assert running.json["outcome"] == "running"
    assert running.json["completion_tokens"] < 1000
    await customer.when_no_hold_is_open()


async def test_the_sdk_gets_a_plain_answer(customer: Customer) -> None:
    with customer.sdk() as client:
        answer = await asyncio.to_thread(
            client.chat.completions.create,
            model=MODEL,
            messages=unique_prompt(),  # type: ignore[arg-type]
        )

    assert answer.usage is not None
    assert answer.choices[0].message.content
    assert 100 - price_of_usage(MODEL, answer.usage.to_dict()) == await customer.balance()


async def test_the_async_sdk_gets_a_plain_answer(customer: Customer) -> None:
    async with customer.async_sdk() as client:
        answer = await client.chat.completions.create(model=MODEL, messages=unique_prompt())

    assert answer.usage is not None
    assert 100 - price_of_usage(MODEL, answer.usage.to_dict()) == await customer.balance()


@pytest.mark.money_bug(27)
async def test_a_stream_shows_no_usage_to_a_client_that_did_not_ask_for_it(customer: Customer) -> None:
    async with customer.async_sdk() as client:
        stream = await client.chat.completions.create(model=MODEL, messages=unique_prompt(), stream=True)
        chunks = [chunk async for chunk in stream]

    assert [chunk.usage for chunk in chunks] == [None] * len(chunks)
    assert all(chunk.choices for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert await customer.balance() < 100


@pytest.mark.parametrize("choices", [1, 2])
async def test_a_stream_shows_usage_once_to_a_client_that_asked_for_it(customer: Customer, choices: int) -> None:
    async with customer.async_sdk() as client:
        stream = await client.chat.completions.create(
            model=MODEL, messages=unique_prompt(), stream=True, stream_options=WITH_USAGE, n=choices
        )
        chunks = [chunk async for chunk in stream]

    told = [(chunk.choices, chunk.usage) for chunk in chunks if chunk.usage is not None]
    assert len(told) == 1
    assert chunks[-1].usage is not None
    assert chunks[-1].choices == []
    assert 100 - price_of_usage(MODEL, chunks[-1].usage.to_dict()) == await customer.balance()


@pytest.mark.money_bug(27)
@pytest.mark.parametrize("options", [None, {}, {"include_usage": False}, {"include_usage": None}])
async def test_a_stream_without_the_wish_for_usage_is_metered_all_the_same(customer: Customer, options: Any) -> None:
    answer = await customer.chat(stream=True, stream_options=options)

    assert answer.status == 200
    assert not any(chunk.get("usage") for chunk in chunks_of(answer.body))
    assert await customer.balance() < 100


async def test_the_sync_sdk_streams(customer: Customer) -> None:
    def text() -> str:
        with customer.sdk() as client:
            stream = client.chat.completions.create(
                model=MODEL,
                messages=unique_prompt(),  # type: ignore[arg-type]
                stream=True,
            )
            return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    assert await asyncio.to_thread(text)


async def test_two_choices_are_charged_with_their_prompt_once(customer: Customer) -> None:
    answer = await customer.chat(n=2, simulate={"tokens": 7})

    usage = answer.json["usage"]
    assert len(answer.json["choices"]) == 2
    assert usage["completion_tokens"] == 14
    assert 100 - price_of_usage(MODEL, usage) == await customer.balance()


@pytest.mark.money_bug(11)
@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ({"max_tokens": 3}, 3),
        ({"max_tokens": 5, "max_completion_tokens": 3}, 3),
        ({"max_tokens": 3, "max_completion_tokens": 5}, 5),
        ({}, 2048),  # the model's default
        ({"max_tokens": None}, 2048),
        ({"max_tokens": 9000}, 8192),  # the model's limit
        ({"max_completion_tokens": 10**30}, 8192),
    ],
)
async def test_the_backend_is_given_the_limit_that_was_paid_for(
    customer: Customer, asked: dict[str, Any], given: int
) -> None:
    answer = await customer.chat(**asked, simulate={"tokens": 10_000, "token_latency_ms": 0})

    assert answer.json["usage"]["completion_tokens"] == given
    assert answer.json["choices"][0]["finish_reason"] == "length"


async def test_a_request_is_repeated_by_no_sdk_when_it_was_answered(customer: Customer) -> None:
    async with customer.async_sdk() as client:
        await client.chat.completions.create(
            model=MODEL, messages=unique_prompt(), extra_headers={"x-simulate": wishes(tokens=3)}
        )

    assert (await customer.event_types()).count("hold.placed") == 1


async def test_the_sdk_lists_the_models_for_sale(customer: Customer) -> None:
    async with customer.async_sdk() as client:
        models = [model.id async for model in client.models.list()]
        one = await client.models.retrieve(MODEL)
        with pytest.raises(openai.NotFoundError) as missing:
            await client.models.retrieve("nothing-of-the-kind")

    assert models == customer.demo.information.models
    assert one.id == MODEL
    assert missing.value.code == "model_not_found"


CONVERSATION = [
    {"role": "user", "content": "What is the balance?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "balance", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "10.00"},
    {"role": "assistant", "content": "Ten dollars.", "tool_calls": None},
    {"role": "user", "content": [{"type": "text", "text": "Thank you."}]},
]


async def test_a_conversation_with_tools_goes_on(customer: Customer) -> None:
    answer = await customer.chat(messages=CONVERSATION, max_tokens=3)

    assert answer.status == 200
    assert Decimal(answer.headers["x-tollgate-cost-cents"]) == price_of_usage("qwen3-32b", answer.json["usage"])
