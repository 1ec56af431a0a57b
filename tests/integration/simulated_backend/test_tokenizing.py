"""The simulated backend counts tokens as it generates them."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulated_backend.generation import RING_TOKENS, Choice, text_of, tokens_of_text
from tests.integration.simulated_backend.client import HELLO, MODEL, Client

TOOLS = [{"type": "function", "function": {"name": "balance", "parameters": {"type": "object"}}}]
#: Models and messages as the tests of answers have them, and whatever else costs tokens.
PROMPTS: dict[str, Any] = {
    "plain": {"messages": HELLO},
    "dialogue": {"messages": [*HELLO, {"role": "assistant", "content": "账本"}, *HELLO]},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "abcde"}, {"type": "image_url"}]}]},
    "tools": {"messages": HELLO, "tools": TOOLS},
    "null tools": {"messages": HELLO, "tools": None},
    "tool calls": {"messages": [*HELLO, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]},
}


@pytest.mark.parametrize("prompt", PROMPTS)
async def test_messages_are_counted_as_a_chat_completion_counts_them(backend: Client, prompt: str) -> None:
    answer = await backend.answer(PROMPTS[prompt])

    status, counted = await backend.tokenize({**PROMPTS[prompt], "add_generation_prompt": True})

    assert (status, counted["count"]) == (200, answer["usage"]["prompt_tokens"])
    assert len(counted["tokens"]) == counted["count"]
    assert counted["max_model_len"] == 4096


@pytest.mark.parametrize("tokens", [0, 1, 5, 4000])
async def test_the_text_of_an_answer_has_as_many_tokens_as_were_generated(backend: Client, tokens: int) -> None:
    answer = await backend.answer(simulate=f"overrun={tokens}")
    text = answer["choices"][0]["message"]["content"]

    status, counted = await backend.tokenize({"prompt": text, "add_special_tokens": False})

    assert (status, counted["count"]) == (200, answer["usage"]["completion_tokens"])


@given(
    start=st.integers(min_value=0, max_value=RING_TOKENS - 1),
    parts=st.lists(st.integers(min_value=0, max_value=50), min_size=1, max_size=5),
)
def test_the_parts_of_an_answer_have_as_many_tokens_as_the_whole(start: int, parts: list[int]) -> None:
    whole = text_of(Choice(index=0, start=start, tokens=sum(parts), finish_reason="stop"))
    pieces = [b" " + word for word in whole.split(b" ")] if whole else []
    pieces[:1] = [piece[1:] for piece in pieces[:1]]

    counted = 0
    for part in parts:
        counted += tokens_of_text(b"".join(pieces[:part]))
        del pieces[:part]

    assert counted == tokens_of_text(whole) == sum(parts)


async def test_special_tokens_are_one_more_unless_declined_as_the_defaults_of_vllm_have_it(backend: Client) -> None:
    async def count(body: dict[str, Any]) -> Any:
        return (await backend.tokenize(body))[1]["count"]

    messages = await count({"messages": HELLO})

    assert await count({"prompt": "one two"}) == 3
    assert await count({"prompt": "one two", "add_special_tokens": False}) == 2
    assert await count({"messages": HELLO, "add_special_tokens": True}) == messages + 1


async def test_counting_leaves_no_trace_in_the_prompt_cache_and_the_journal(own_backend: Client) -> None:
    prompt = {"messages": [{"role": "user", "content": "a" * 400}]}
    await own_backend.tokenize(prompt)

    answer = await own_backend.answer(prompt)

    assert answer["usage"]["prompt_tokens_details"]["cached_tokens"] == 0
    assert len(await own_backend.get("/_simulator/requests")) == 1


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"model": "unheard-of", "messages": HELLO}, 404, "The model `unheard-of` does not exist."),
        ({"model": "unheard-of", "prompt": "text"}, 404, "The model `unheard-of` does not exist."),
        ({}, 400, "messages"),
        ({"messages": []}, 400, "length >= 1"),
        ({"prompt": 7}, 400, "prompt"),
    ],
)
async def test_bad_requests_are_refused(backend: Client, body: dict[str, Any], status: int, message: str) -> None:
    refused, answer = await backend.tokenize(body)

    assert (refused, answer["error"]["code"]) == (status, status)
    assert message in answer["error"]["message"]


async def test_a_body_that_is_no_json_is_refused(backend: Client) -> None:
    async with backend.session.post("/tokenize", data=b"{") as response:
        assert response.status == 400


# Its own faults


async def test_it_can_refuse_to_count_and_still_generate(own_backend: Client) -> None:
    await own_backend.simulate(tokenize_status=503)

    status, answer = await own_backend.tokenize({"messages": HELLO})

    assert (status, answer["error"]["type"]) == (503, "SimulatedFault")
    assert (await own_backend.answer())["choices"]


async def test_it_can_hang_instead_of_counting(backend: Client) -> None:
    with pytest.raises(asyncio.TimeoutError):
        async with asyncio.timeout(0.1):
            await backend.tokenize({"messages": HELLO}, simulate="tokenize_hang=60")

    assert (await backend.tokenize({"messages": HELLO}, simulate="tokenize_hang=0.01"))[0] == 200


async def test_counting_uses_up_no_fault_of_a_chat_completion(own_backend: Client) -> None:
    await own_backend.simulate(status=500, times=1)

    assert (await own_backend.tokenize({"messages": HELLO}))[0] == 200

    assert (await own_backend.refusal({"model": MODEL}))[0] == 500


async def test_an_unknown_wish_is_refused_by_name(backend: Client) -> None:
    status, answer = await backend.tokenize({"messages": HELLO}, simulate="tokenise=1")

    assert status == 400
    assert "tokenise" in answer["error"]["message"]
