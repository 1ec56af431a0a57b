"""The simulated backend answers as vLLM does, and counts as it says."""

import json
import time
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulated_backend.chat import decode
from simulated_backend.generation import tokenize
from tests.integration.simulated_backend.client import (
    HELLO,
    MODEL,
    Client,
    text_of,
    usages_in,
)


async def test_equal_requests_get_equal_answers_plain_and_streamed(backend: Client) -> None:
    plain = await backend.answer()
    again = await backend.answer()
    streamed = await backend.events()

    content = plain["choices"][0]["message"]["content"]
    assert content
    assert again["choices"] == plain["choices"]
    assert text_of(streamed) == content


async def test_other_messages_get_another_answer(backend: Client) -> None:
    one = await backend.answer()
    other = await backend.answer({"messages": [{"role": "user", "content": "Say something else."}]})

    assert one["choices"][0]["message"]["content"] != other["choices"][0]["message"]["content"]


async def test_each_word_of_the_answer_is_one_token(backend: Client) -> None:
    answer = await backend.answer(simulate="tokens=5000,overrun=5000")

    assert answer["usage"]["completion_tokens"] == 5000
    assert len(answer["choices"][0]["message"]["content"].split(" ")) == 5000


@pytest.mark.parametrize(
    ("body", "tokens", "finish_reason"),
    [
        ({"max_tokens": 5}, 5, "length"),
        ({"max_completion_tokens": 7}, 7, "length"),
        ({"max_tokens": 5, "max_completion_tokens": 7}, 7, "length"),
        ({"max_tokens": 20}, 20, "stop"),
        ({"max_tokens": 4000}, 20, "stop"),
        ({}, 20, "stop"),
    ],
)
async def test_the_answer_ends_at_its_natural_length_or_at_max_tokens(
    backend: Client, body: dict[str, int], tokens: int, finish_reason: str
) -> None:
    answer = await backend.answer(body, simulate="tokens=20")

    assert answer["usage"]["completion_tokens"] == tokens
    assert answer["choices"][0]["finish_reason"] == finish_reason


async def test_ignore_eos_fills_what_max_tokens_allows(backend: Client) -> None:
    answer = await backend.answer({"max_tokens": 500, "ignore_eos": True})

    assert answer["usage"]["completion_tokens"] == 500


async def test_with_several_choices_the_prompt_counts_once_and_the_answers_add_up(backend: Client) -> None:
    one = await backend.answer({"max_tokens": 6})
    three = await backend.answer({"max_tokens": 6, "n": 3})
    streamed = await backend.events({"max_tokens": 6, "n": 3, "stream_options": {"include_usage": True}})

    assert three["usage"]["prompt_tokens"] == one["usage"]["prompt_tokens"]
    assert three["usage"]["completion_tokens"] == 18
    assert [choice["index"] for choice in three["choices"]] == [0, 1, 2]
    assert len({choice["message"]["content"] for choice in three["choices"]}) == 3
    assert [text_of(streamed, choice) for choice in range(3)] == [
        choice["message"]["content"] for choice in three["choices"]
    ]
    assert usages_in(streamed) == [three["usage"]]


# How it counts


@pytest.mark.parametrize(
    ("content", "tokens"),
    [("", 3), ("abcd", 4), ("abcde", 5), ("账本", 5), ([{"type": "text", "text": "abcd"}], 4)],
)
async def test_a_message_costs_three_tokens_and_one_for_each_four_bytes(
    backend: Client, content: Any, tokens: int
) -> None:
    answer = await backend.answer({"messages": [{"role": "user", "content": content}]})

    assert answer["usage"]["prompt_tokens"] == tokens
    assert answer["usage"]["total_tokens"] == tokens + answer["usage"]["completion_tokens"]


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3),
    max_leaves=4,
)
MESSAGES = st.fixed_dictionaries(
    {
        "role": st.text(),
        "content": st.none() | st.text() | st.lists(st.dictionaries(st.text(), JSON_VALUES), max_size=3),
    },
    optional={"tool_calls": st.lists(JSON_VALUES, max_size=3)},
)


@given(messages=st.lists(MESSAGES, min_size=1, max_size=4), tools=st.lists(JSON_VALUES, max_size=3))
def test_a_prompt_never_has_more_tokens_than_its_json_has_bytes(
    messages: list[dict[str, Any]], tools: list[Any]
) -> None:
    body = json.dumps({"messages": messages, "tools": tools, "model": ""}, ensure_ascii=False, separators=(",", ":"))

    request = decode(body.encode())

    assert tokenize(request.model, request.messages, request.tool_definitions).tokens <= len(body.encode())


async def test_a_repeated_prefix_is_cached_in_whole_blocks_but_never_the_whole_prompt(backend: Client) -> None:
    first = {"role": "user", "content": "a" * 116}  # 32 tokens: two blocks
    second = {"role": "user", "content": "b" * 40}

    cold = await backend.answer({"messages": [first]})
    same = await backend.answer({"messages": [first]})
    longer = await backend.answer({"messages": [first, second]})

    cached = [answer["usage"]["prompt_tokens_details"]["cached_tokens"] for answer in (cold, same, longer)]
    assert cached == [0, 16, 32]


# How it streams


async def test_a_stream_is_role_then_tokens_then_finish_then_done(backend: Client) -> None:
    role, *tokens, finish, done = await backend.events({"max_tokens": 3})

    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [token["choices"][0]["finish_reason"] for token in tokens] == [None, None, None]
    assert all(token["choices"][0]["delta"]["content"] for token in tokens)
    assert finish["choices"][0]["finish_reason"] == "length"
    assert done == "[DONE]"


async def test_usage_is_streamed_only_when_asked_for(backend: Client) -> None:
    silent = await backend.events({"max_tokens": 3})
    telling = await backend.events({"max_tokens": 3, "stream_options": {"include_usage": True}})

    assert usages_in(silent) == []
    assert telling[-1] == "[DONE]"
    assert telling[-2]["choices"] == []
    assert telling[-2]["usage"]["completion_tokens"] == 3
    assert usages_in(telling[:-2]) == []


async def test_continuous_usage_counts_up_with_every_chunk(backend: Client) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}

    events = await backend.events({"max_tokens": 3, "stream_options": options})

    assert [usage["completion_tokens"] for usage in usages_in(events)] == [0, 1, 2, 3, 3, 3]


async def test_a_stream_without_latency_is_still_one_event_for_each_token(backend: Client) -> None:
    events = await backend.events({"stream_options": {"include_usage": True}}, simulate="tokens=1000")

    assert len(events) == 1 + 1000 + 1 + 1 + 1


async def test_tokens_take_the_latency_asked_for(backend: Client) -> None:
    began = time.monotonic()

    await backend.events({"max_tokens": 10}, simulate="token_latency_ms=10,first_token_latency_ms=50,tokens=10")

    assert time.monotonic() - began >= 0.15


async def test_the_openai_sdk_reads_plain_and_streamed_answers(backend: Client) -> None:
    async with openai.AsyncOpenAI(base_url=f"{backend.url}/v1", api_key="unused", max_retries=0) as sdk:
        plain = await sdk.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=5)
        stream = await sdk.chat.completions.create(
            model=MODEL, messages=HELLO, max_tokens=5, stream=True, stream_options={"include_usage": True}
        )
        *parts, last = [chunk async for chunk in stream]

    assert plain.usage is not None
    assert last.usage is not None
    assert plain.usage.completion_tokens == last.usage.completion_tokens == 5
    assert plain.usage.prompt_tokens == last.usage.prompt_tokens
    assert "".join(part.choices[0].delta.content or "" for part in parts) == plain.choices[0].message.content


async def test_models_are_listed_with_their_context_length(backend: Client) -> None:
    models = await backend.get("/v1/models")

    assert [model["id"] for model in models["data"]] == ["simulated-small", "simulated-large"]
    assert {model["max_model_len"] for model in models["data"]} == {4096}


# What it refuses


@pytest.mark.parametrize(
    ("body", "status", "param", "message"),
    [
        ({"max_tokens": -1}, 400, "max_tokens", "max_tokens must be at least 1, got -1."),
        ({"max_tokens": 0}, 400, "max_tokens", "max_tokens must be at least 1, got 0."),
        ({"n": 0}, 400, "n", "n must be at least 1"),
        ({"max_tokens": 5000}, 400, "input_tokens", "maximum context length is 4096 tokens"),
        ({"messages": [{"role": "user", "content": "x" * 20000}]}, 400, "input_tokens", "maximum context length"),
        ({"model": "unheard-of"}, 404, "model", "The model `unheard-of` does not exist."),
        ({"messages": []}, 400, None, "length >= 1"),
        ({"max_tokens": "many"}, 400, None, "max_tokens"),
        ({"stream_options": {"include_usage": True}}, 400, "stream_options", "stream=True"),
    ],
)
async def test_bad_requests_are_refused_as_vllm_does(
    backend: Client, body: dict[str, Any], status: int, param: str | None, message: str
) -> None:
    refused, error = await backend.refusal(body, request_id="refused")

    assert refused == status
    assert message in error["message"]
    assert (error["param"], error["code"]) == (param, status)
    assert (await backend.record("refused"))["completion_tokens"] == 0


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b'{"model": ',
        b"[]",
        b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}',
        b'{"model":"m","messages":' + b"[" * 100_000,
        b'{"model":"simulated-small","messages":[{"role":"user"}],"max_tokens":1' + b"0" * 400 + b"}",
    ],
)
async def test_malformed_bodies_are_refused(backend: Client, body: bytes) -> None:
    async with backend.session.post("/v1/chat/completions", data=body) as response:
        assert response.status == 400


async def test_an_unknown_fault_is_refused_by_name(backend: Client) -> None:
    status, error = await backend.refusal({}, simulate="close_afterwards=3")

    assert status == 400
    assert "close_afterwards" in error["message"]
