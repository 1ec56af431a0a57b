"""The simulated backend misbehaves as asked."""

import asyncio
import json
import time
from typing import Any

import aiohttp
import pytest

from tests.integration.simulated_backend.client import (
    MODEL,
    Client,
    running_backend,
    text_of,
    usages_in,
)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_it_can_refuse_with_any_status(backend: Client, status: int) -> None:
    async with backend.post({}, simulate=f"status={status},retry_after=7", request_id="told") as response:
        assert response.status == status
        assert response.headers["retry-after"] == "7"

    record = await backend.record("told")
    assert (record["outcome"], record["status"], record["prompt_tokens"]) == ("refused", status, 0)


async def test_it_can_hang_before_the_headers(backend: Client) -> None:
    began = time.monotonic()

    await backend.answer(simulate="hang=0.2")

    assert time.monotonic() - began >= 0.2


async def test_leaving_a_hanging_request_is_recorded(backend: Client) -> None:
    with pytest.raises(asyncio.TimeoutError):
        async with asyncio.timeout(0.1):
            await backend.answer(simulate="hang=60", request_id="hanging")

    record = await backend.record("hanging")

    assert (record["outcome"], record["status"], record["prompt_tokens"]) == ("aborted", 0, 0)


async def test_it_can_close_before_the_headers(backend: Client) -> None:
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await backend.answer(simulate="close_before_headers=true", request_id="closed")

    assert (await backend.record("closed"))["outcome"] == "cut"


async def test_it_can_close_a_stream_after_some_tokens(backend: Client) -> None:
    received = await backend.received({"stream": True}, simulate="close_after=4", request_id="cut")

    record = await backend.record("cut")

    assert received.count(b'"finish_reason":null') == 1 + 4
    assert b"[DONE]" not in received
    assert (record["outcome"], record["completion_tokens"], record["tokens_written"]) == ("cut", 4, 4)


async def test_it_can_close_a_plain_answer_after_some_tokens(backend: Client) -> None:
    whole = (await backend.answer())["choices"][0]["message"]["content"]

    received = await backend.received({}, simulate="close_after=4", request_id="cut-plain")

    assert received.decode().endswith('"content":"' + " ".join(whole.split(" ")[:4]))
    assert (await backend.record("cut-plain"))["tokens_written"] == 4


@pytest.mark.parametrize("stream", [True, False])
async def test_it_can_go_silent_after_some_tokens(backend: Client, stream: bool) -> None:
    async with backend.post({"stream": stream}, simulate="silent_after=4", request_id="silent") as response:
        with pytest.raises(asyncio.TimeoutError):
            async with asyncio.timeout(0.2):
                await response.read()

    record = await backend.record("silent")

    assert (record["outcome"], record["tokens_written"]) == ("aborted", 4)


async def test_it_can_send_an_error_event_after_some_tokens(backend: Client) -> None:
    *chunks, error, done = await backend.events(simulate="error_after=4", request_id="failed")

    assert len(chunks) == 1 + 4
    assert error["error"]["code"] == 500
    assert done == "[DONE]"
    assert (await backend.record("failed"))["outcome"] == "cut"


async def test_an_error_after_some_tokens_of_a_plain_answer_is_a_500(backend: Client) -> None:
    status, error = await backend.refusal({}, simulate="error_after=4", request_id="failed-plain")

    record = await backend.record("failed-plain")

    assert (status, error["type"]) == (500, "InternalServerError")
    assert record["completion_tokens"] > 0
    assert record["tokens_written"] == 0


async def test_a_cut_beyond_the_end_changes_nothing(backend: Client) -> None:
    events = await backend.events({"max_tokens": 3}, simulate="close_after=4")

    assert events[-1] == "[DONE]"


async def test_it_can_answer_beyond_max_tokens(backend: Client) -> None:
    answer = await backend.answer({"max_tokens": 5}, simulate="overrun=10000")

    assert answer["usage"]["completion_tokens"] == 10_000


async def test_it_can_send_broken_json(backend: Client) -> None:
    async with backend.post({}, simulate="body=malformed") as response:
        text = await response.text()
    with pytest.raises(json.JSONDecodeError):
        json.loads(text)
    with pytest.raises(json.JSONDecodeError):
        await backend.events(simulate="body=malformed")


@pytest.mark.parametrize("stream", [True, False])
async def test_it_can_end_before_the_announced_length(backend: Client, stream: bool) -> None:
    with pytest.raises(aiohttp.ClientPayloadError):
        async with backend.post({"stream": stream}, simulate="body=wrong_length") as response:
            await response.read()


USAGE_SHAPES: dict[str, Any] = {
    "normal": [
        {"prompt_tokens": 4, "total_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 0}}
    ],
    "missing": [],
    "null": [None],
    "negative": [
        {
            "prompt_tokens": -4,
            "total_tokens": -7,
            "completion_tokens": -3,
            "prompt_tokens_details": {"cached_tokens": 0},
        }
    ],
    "strings": [{"prompt_tokens": "4", "total_tokens": "7", "completion_tokens": "3"}],
    "cached_above_prompt": [
        {"prompt_tokens": 4, "total_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 20}}
    ],
    "no_cached_details": [
        {"prompt_tokens": 4, "total_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": None}
    ],
}
SHORT = {"messages": [{"role": "user", "content": "abcd"}], "max_tokens": 3}
SHORT_STREAM = {**SHORT, "stream_options": {"include_usage": True}}


@pytest.mark.parametrize("shape", USAGE_SHAPES)
async def test_usage_can_take_any_shape(backend: Client, shape: str) -> None:
    plain = await backend.answer(SHORT, simulate=f"usage={shape}")
    streamed = await backend.events(SHORT_STREAM, simulate=f"usage={shape}", request_id=f"usage-{shape}")

    assert usages_in([plain]) == USAGE_SHAPES[shape]
    assert usages_in(streamed) == USAGE_SHAPES[shape]
    assert (await backend.record(f"usage-{shape}"))["completion_tokens"] == 3


async def test_usage_can_stand_in_any_place_of_a_stream(backend: Client) -> None:
    normal = USAGE_SHAPES["normal"][0]
    with_finish = await backend.events(SHORT_STREAM, simulate="usage=with_finish")
    twice = await backend.events(SHORT_STREAM, simulate="usage=twice")
    after_done = await backend.events(SHORT_STREAM, simulate="usage=after_done")
    with_last_token = await backend.events(SHORT_STREAM, simulate="usage=with_last_token")
    unasked = await backend.events(SHORT, simulate="usage=every_chunk")

    assert usages_in(with_finish) == [normal]
    assert with_finish[-2]["choices"][0]["finish_reason"] == "length"
    assert usages_in(with_last_token) == [normal]
    assert with_last_token[-3]["usage"] == normal
    assert with_last_token[-3]["choices"][0]["delta"]["content"]
    assert usages_in(twice) == [normal, normal]
    assert after_done[-2] == "[DONE]"
    assert after_done[-1]["usage"] == normal
    assert [usage["completion_tokens"] for usage in usages_in(unasked)] == [0, 1, 2, 3, 3]


COUNTED_ALONG: dict[str, Any] = {
    "normal": [0, 1, 2, 3, 3, 3],
    "final_only": [3],
    "with_last_token": [0, 1, 2, 3, 3],
    "with_finish": [0, 1, 2, 3, 3],
    "twice": [0, 1, 2, 3, 3, 3, 3],
    "after_done": [0, 1, 2, 3, 3, 3],
    "no_cached_details": [0, 1, 2, 3, 3, 3],
    "negative": [0, -1, -2, -3, -3, -3],
    "strings": ["0", "1", "2", "3", "3", "3"],
    "null": [None] * 6,
    "missing": [],
}


@pytest.mark.parametrize("shape", COUNTED_ALONG)
async def test_usage_takes_its_shape_where_it_is_counted_along_too(backend: Client, shape: str) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}

    usages = usages_in(await backend.events({**SHORT, "stream_options": options}, simulate=f"usage={shape}"))

    assert [usage and usage["completion_tokens"] for usage in usages] == COUNTED_ALONG[shape]


# Several tokens in one event


async def test_after_the_first_token_so_many_come_together_as_wished_for(backend: Client) -> None:
    plain = await backend.answer(simulate="tokens=9")
    options = {"include_usage": True, "continuous_usage_stats": True}

    events = await backend.events({"stream_options": options}, simulate="tokens=9,stream_interval=3")

    contents = [event["choices"][0]["delta"]["content"] for event in events[1:-3]]
    assert [len(content.split()) for content in contents] == [1, 3, 3, 2]
    assert text_of(events) == plain["choices"][0]["message"]["content"]
    assert [usage["completion_tokens"] for usage in usages_in(events)] == [0, 1, 4, 7, 9, 9, 9]


async def test_each_choice_tells_its_last_tokens_when_it_ends(backend: Client) -> None:
    plain = await backend.answer({"n": 3})

    streamed = await backend.events({"n": 3}, simulate="stream_interval=7")

    assert [text_of(streamed, choice) for choice in range(3)] == [
        choice["message"]["content"] for choice in plain["choices"]
    ]


async def test_tokens_held_back_for_the_next_event_are_generated_but_not_written(backend: Client) -> None:
    await backend.received({"stream": True}, simulate="tokens=20,stream_interval=5,close_after=9", request_id="held")

    record = await backend.record("held")

    assert (record["completion_tokens"], record["tokens_written"]) == (9, 6)


# The rest of an answer


async def test_the_answer_can_name_another_model(backend: Client) -> None:
    answer = await backend.answer(simulate="usage=other_model")

    assert answer["model"] == f"not-{MODEL}"


async def test_the_cached_share_can_be_set(backend: Client) -> None:
    answer = await backend.answer({"messages": [{"role": "user", "content": "x" * 400}]}, simulate="cached=100")

    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 100}


# Faults that stand


async def test_faults_at_run_time_hold_until_replaced(own_backend: Client) -> None:
    await own_backend.simulate(status=503)
    assert (await own_backend.refusal({}))[0] == 503

    await own_backend.simulate()

    assert (await own_backend.answer())["choices"]


async def test_faults_can_hold_for_some_requests_only(own_backend: Client) -> None:
    await own_backend.simulate(status=500, times=2)

    statuses = []
    for _ in range(4):
        async with own_backend.post({}) as response:
            statuses.append(response.status)

    assert statuses == [500, 500, 200, 200]


async def test_faults_can_hold_for_each_so_manieth_request(own_backend: Client) -> None:
    await own_backend.simulate(status=500, every=3)

    statuses = []
    for _ in range(6):
        async with own_backend.post({}) as response:
            statuses.append(response.status)

    assert statuses == [200, 200, 500, 200, 200, 500]


async def test_a_header_is_stronger_than_the_standing_faults(own_backend: Client) -> None:
    await own_backend.simulate(usage="missing", tokens=5)

    answer = await own_backend.answer(simulate="usage=normal")

    assert answer["usage"]["completion_tokens"] == 5


async def test_an_unknown_standing_fault_is_refused_and_changes_nothing(own_backend: Client) -> None:
    async with own_backend.session.post("/_simulator/faults", json={"explode": 1}) as response:
        assert response.status == 400
        assert "explode" in (await response.json())["error"]["message"]

    assert (await own_backend.answer())["choices"]


async def test_health_can_go_down(own_backend: Client) -> None:
    async with own_backend.session.get("/health") as response:
        assert response.status == 200
    await own_backend.simulate(health="down")
    async with own_backend.session.get("/health") as response:
        assert response.status == 503
    await own_backend.simulate(health="hang")
    with pytest.raises(asyncio.TimeoutError):
        async with asyncio.timeout(0.1):
            await own_backend.get("/health")


async def test_faults_can_be_set_by_flag() -> None:
    with running_backend("--simulate", "status=503") as (_, url):
        async with aiohttp.ClientSession(url) as session:
            assert (await Client(url, session).refusal({}))[0] == 503
