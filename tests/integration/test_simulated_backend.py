"""The simulated backend: it answers as vLLM does, misbehaves as asked, and knows what it really computed."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulated_backend.chat import decode
from simulated_backend.generation import tokenize

REPOSITORY = Path(__file__).resolve().parents[2]
MODEL = "simulated-small"
WAIT_LIMIT_S = 30.0
HELLO: list[Any] = [{"role": "user", "content": "Say something about ledgers."}]


@contextmanager
def running_backend(*flags: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A backend process and its URL."""
    argv = [sys.executable, "-m", "simulated_backend", "--port", "0", "--die-with-parent", *flags]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())["port"]
        yield process, f"http://127.0.0.1:{port}"
        process.terminate()


class Client:
    """One backend as its caller sees it."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.session = session

    @asynccontextmanager
    async def post(
        self, body: dict[str, Any], *, simulate: str = "", request_id: str = ""
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {"x-simulate": simulate, "x-request-id": request_id}
        headers = {name: value for name, value in headers.items() if value}
        request = {"model": MODEL, "messages": HELLO, **body}
        async with self.session.post("/v1/chat/completions", json=request, headers=headers) as response:
            yield response

    async def answer(self, body: dict[str, Any] | None = None, **how: str) -> dict[str, Any]:
        async with self.post(body or {}, **how) as response:
            assert response.status == 200, await response.text()
            answer: dict[str, Any] = await response.json()
            return answer

    async def refusal(self, body: dict[str, Any], **how: str) -> tuple[int, dict[str, Any]]:
        async with self.post(body, **how) as response:
            return response.status, (await response.json())["error"]

    async def received(self, body: dict[str, Any], *, simulate: str, request_id: str) -> bytes:
        """Every byte that comes until the backend closes: client libraries drop what came before an early end."""
        request = json.dumps({"model": MODEL, "messages": HELLO, **body})
        head = f"x-simulate: {simulate}\r\nx-request-id: {request_id}\r\ncontent-length: {len(request)}"
        return await self.exchange(f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n\r\n{request}".encode())

    async def exchange(self, sent: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(self.url.rpartition(":")[2]))
        writer.write(sent)
        received = await reader.read()
        writer.close()
        return received

    async def events(self, body: dict[str, Any] | None = None, **how: str) -> list[Any]:
        """The data of each event; ``[DONE]`` as that text."""
        async with self.post({"stream": True, **(body or {})}, **how) as response:
            assert response.status == 200
            text = await response.text()
        blocks = text.removesuffix("\n\n").split("\n\n")
        datas = [block.removeprefix("data: ") for block in blocks]
        return [data if data == "[DONE]" else json.loads(data) for data in datas]

    async def get(self, path: str) -> Any:
        async with self.session.get(path) as response:
            return await response.json()

    async def simulate(self, **faults: Any) -> None:
        async with self.session.post("/_simulator/faults", json=faults) as response:
            assert response.status == 200, await response.text()

    async def record(self, request_id: str) -> dict[str, Any]:
        """The journal's record of a request, once it has ended."""
        deadline = time.monotonic() + WAIT_LIMIT_S
        while time.monotonic() < deadline:
            record: dict[str, Any] | None = await self.get(f"/_simulator/requests/{request_id}")
            if record and record["outcome"] != "running":
                return record
            await asyncio.sleep(0.01)
        raise AssertionError(f"{request_id} did not end")


@pytest.fixture(scope="session")
async def backend() -> AsyncIterator[Client]:
    with running_backend("--token-latency-ms", "0", "--context-length", "4096") as (_, url):
        async with aiohttp.ClientSession(url) as session:
            yield Client(url, session)


@pytest.fixture
async def own_backend() -> AsyncIterator[Client]:
    """A backend whose standing faults a test may change."""
    with running_backend("--token-latency-ms", "0") as (_, url):
        async with aiohttp.ClientSession(url) as session:
            yield Client(url, session)


def text_of(events: list[Any], choice: int = 0) -> str:
    chunks = [event for event in events if event != "[DONE]"]
    deltas = [part["delta"] for chunk in chunks for part in chunk["choices"] if part["index"] == choice]
    return "".join(delta.get("content", "") for delta in deltas)


def usages_in(events: list[Any]) -> list[Any]:
    return [event["usage"] for event in events if event != "[DONE]" and "usage" in event]


# What it answers


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


# What it remembers


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


# How it misbehaves


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
    unasked = await backend.events(SHORT, simulate="usage=every_chunk")

    assert usages_in(with_finish) == [normal]
    assert with_finish[-2]["choices"][0]["finish_reason"] == "length"
    assert usages_in(twice) == [normal, normal]
    assert after_done[-2] == "[DONE]"
    assert after_done[-1]["usage"] == normal
    assert [usage["completion_tokens"] for usage in usages_in(unasked)] == [0, 1, 2, 3, 3]


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


# The connection


async def test_requests_may_come_in_chunks_and_in_pieces(backend: Client) -> None:
    body = json.dumps({"model": MODEL, "messages": HELLO}).encode()

    async def pieces() -> AsyncIterator[bytes]:
        for position in range(0, len(body), 7):
            yield body[position : position + 7]
            await asyncio.sleep(0)

    async with backend.session.post("/v1/chat/completions", data=pieces()) as response:
        assert response.status == 200


async def test_a_large_body_that_waits_for_its_go_ahead_is_read(backend: Client) -> None:
    request = {"model": MODEL, "messages": HELLO, "padding": "x" * 10_000_000}
    async with backend.session.post("/v1/chat/completions", json=request, expect100=True) as response:
        assert response.status == 200


async def test_pipelined_requests_are_answered_in_order(backend: Client) -> None:
    answered = await backend.exchange(b"GET /health HTTP/1.1\r\n\r\nGET /nowhere HTTP/1.1\r\nConnection: close\r\n\r\n")

    assert answered.startswith(b"HTTP/1.1 200 OK")
    assert b"HTTP/1.1 404 Not Found" in answered


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\ncontent-length: 999999999\r\n\r\n", b"413"),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000, b"431"),
    ],
)
async def test_what_is_no_request_is_refused_and_disconnected(backend: Client, sent: bytes, status: bytes) -> None:
    assert (await backend.exchange(sent)).startswith(b"HTTP/1.1 " + status)


# The process


async def test_the_journal_file_survives_kill_9(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with running_backend("--journal", str(path), "--token-latency-ms", "0") as (process, url):
        async with aiohttp.ClientSession(url) as session:
            client = Client(url, session)
            await client.answer({"max_tokens": 2}, request_id="kept")
            await client.record("kept")
        process.kill()

    lines = [json.loads(line) for line in path.read_text().splitlines()]

    assert [(line["request_id"], line["completion_tokens"]) for line in lines] == [("kept", 2)]


async def test_sigterm_ends_it_at_once_and_records_what_was_running(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with running_backend("--journal", str(path)) as (process, url):
        async with (
            aiohttp.ClientSession(url) as session,
            Client(url, session).post({"stream": True}, simulate="tokens=4000", request_id="half") as response,
        ):
            await response.content.readline()
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, WAIT_LIMIT_S) == 0

    assert [json.loads(line)["outcome"] for line in path.read_text().splitlines()] == ["aborted"]


PARENT = """
import subprocess, sys, time
argv = [sys.executable, "-m", "simulated_backend", "--port", "0", "--die-with-parent"]
child = subprocess.Popen(argv, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""


def spawn_parent() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)


async def test_it_dies_with_a_killed_parent() -> None:
    with spawn_parent() as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()

    deadline = time.monotonic() + WAIT_LIMIT_S
    while is_running(pid):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
