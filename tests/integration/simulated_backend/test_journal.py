"""The simulated backend knows what it really computed."""

import asyncio

import pytest

from tests.integration.simulated_backend.client import (
    MODEL,
    Client,
)


async def test_the_journal_says_what_a_request_cost(backend: Client) -> None:
    answer = await backend.answer({"max_tokens": 9}, request_id="plain-1")

    record = await backend.record("plain-1")

    assert answer["id"] == "chatcmpl-plain-1"
    assert record["prompt_tokens"] == answer["usage"]["prompt_tokens"]
    assert record["cached_tokens"] == answer["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert (record["completion_tokens"], record["tokens_written"]) == (9, 9)
    assert (record["outcome"], record["status"], record["stream"], record["model"]) == ("finished", 200, False, MODEL)


async def test_the_journal_can_be_read_from_where_one_left_off(backend: Client) -> None:
    await backend.answer(request_id="before")
    seen = (await backend.record("before"))["sequence"]
    await backend.answer(request_id="after-1")
    await backend.answer(request_id="after-2")

    records = await backend.get(f"/_simulator/requests?since={seen}")

    assert [record["request_id"] for record in records] == ["after-1", "after-2"]


async def test_a_client_that_leaves_stops_the_generation(backend: Client) -> None:
    async with backend.post({"stream": True}, simulate="tokens=4000,token_latency_ms=5", request_id="left") as response:
        while b'"content":" ' not in await response.content.readline():
            pass
        assert [record["request_id"] for record in await backend.get("/_simulator/requests?running")] == ["left"]
        response.close()

    record = await backend.record("left")

    assert record["outcome"] == "aborted"
    assert 0 < record["tokens_written"] <= record["completion_tokens"] < 4000


async def test_a_client_that_reads_nothing_holds_the_generation_up(backend: Client) -> None:
    async with backend.post({"stream": True}, simulate="overrun=1000000", request_id="slow") as response:
        await response.content.readline()
        response.close()

    record = await backend.record("slow")

    assert record["outcome"] == "aborted"
    assert record["tokens_written"] <= record["completion_tokens"] < 1_000_000


async def test_a_plain_answer_that_nobody_reads_is_not_counted_as_written(backend: Client) -> None:
    async with backend.post({}, simulate="overrun=5000000", request_id="unread") as response:
        response.close()

    record = await backend.record("unread")

    assert (record["outcome"], record["completion_tokens"], record["tokens_written"]) == ("aborted", 5_000_000, 0)


async def test_a_client_that_leaves_a_plain_answer_stops_the_generation(backend: Client) -> None:
    with pytest.raises(asyncio.TimeoutError):
        async with asyncio.timeout(0.2):
            await backend.answer(simulate="tokens=4000,token_latency_ms=10", request_id="impatient")

    record = await backend.record("impatient")

    assert record["outcome"] == "aborted"
    assert record["tokens_written"] == 0
    assert 0 < record["completion_tokens"] < 4000
