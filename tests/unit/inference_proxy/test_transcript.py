"""What a client got of a stream whose backend does not count along, and what the backend is shown of it to count."""

import json
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from inference_proxy.backends import Backend, BackendConfig, BackendPool
from inference_proxy.chat import prepare
from inference_proxy.models import Model, ModelCatalog
from inference_proxy.prepared import Prepared
from inference_proxy.transcript import Transcript
from inference_proxy.usage import UsageUnreadable

MODELS = ModelCatalog([Model(id="m", context_length=4000, partial_usage="tokenize")])
MESSAGES = [{"role": "user", "content": "Hi"}]


class Counting:
    """A backend's ``POST /tokenize``: notes what it is shown, and says that each message and each word is a token."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        config = BackendConfig(name="gpu", url=url, models=["m"])
        self.shown: list[Any] = []
        self.answer: tuple[int, Any] | None = None  # in place of the count
        self.pool = BackendPool([config], session, monotonic=time.monotonic)

    @property
    def backend(self) -> Backend:
        return self.pool.backends[0]

    async def tokenize(self, request: web.Request) -> web.Response:
        shown = await request.json()
        self.shown.append(shown)
        if self.answer is not None:
            return web.json_response(self.answer[1], status=self.answer[0])
        return web.json_response({"count": len(shown["messages"] if "messages" in shown else shown["prompt"].split())})

    async def count(self, transcript: Transcript, request: Prepared) -> dict[str, Any]:
        return await transcript.counted(self.pool, self.backend, request)


@pytest_asyncio.fixture
async def counting() -> AsyncIterator[Counting]:
    async with aiohttp.ClientSession() as session:
        counting = Counting("http://127.0.0.1", session)
        app = web.Application()
        app.router.add_post("/tokenize", counting.tokenize)
        async with TestServer(app) as server:
            counting.backend.url = str(server.make_url("")).rstrip("/")
            yield counting


def prepared(**fields: Any) -> Prepared:
    return prepare(json.dumps({"model": "m", "messages": MESSAGES, "stream": True, **fields}).encode(), MODELS)


def chunk(delta: dict[str, Any], *, index: int = 0) -> bytes:
    return b"data: %b\n\n" % json.dumps({"choices": [{"index": index, "delta": delta}]}).encode()


def transcript(*events: bytes) -> Transcript:
    got = Transcript()
    for each in events:
        got.add(each)
    return got


async def test_the_backend_is_shown_the_prompt_and_what_the_client_got(counting: Counting) -> None:
    got = transcript(chunk({"role": "assistant", "content": ""}), chunk({"content": "one"}), chunk({"content": " two"}))

    usage = await counting.count(got, prepared(temperature=1))

    assert usage == {"prompt_tokens": 1, "completion_tokens": 2}
    assert counting.shown == [
        {"model": "m", "messages": MESSAGES},
        {"model": "m", "prompt": "one two", "add_special_tokens": False},
    ]
    assert got.words == 2


async def test_what_shapes_the_prompt_is_shown_with_it(counting: Counting) -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]

    await counting.count(transcript(chunk({"content": "a"})), prepared(tools=tools, chat_template_kwargs={"x": 1}))

    assert counting.shown[0] == {
        "model": "m",
        "messages": MESSAGES,
        "tools": tools,
        "chat_template_kwargs": {"x": 1},
    }


async def test_each_answer_is_counted_by_itself_and_the_prompt_once(counting: Counting) -> None:
    got = transcript(chunk({"content": "a b"}), chunk({"content": "c"}, index=1), chunk({"content": " d"}))

    assert await counting.count(got, prepared(n=2)) == {"prompt_tokens": 1, "completion_tokens": 4}
    assert [each["prompt"] for each in counting.shown[1:]] == ["a b d", "c"]


@pytest.mark.parametrize(
    "delta",
    [
        {"content": "word"},
        {"reasoning_content": "word"},
        {"reasoning": "word"},
        {"tool_calls": [{"index": 0, "function": {"name": "word"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "word"}}]},
    ],
    ids=str,
)
async def test_every_kind_of_word_counts(counting: Counting, delta: dict[str, Any]) -> None:
    got = transcript(chunk(delta))

    assert got.words == 1
    assert (await counting.count(got, prepared()))["completion_tokens"] == 1


@pytest.mark.parametrize(
    "event",
    [
        b": ping\n\n",
        b"data: [DONE]\n\n",
        b'data: {"choices": [{"del\n\n',
        b'data: {"choices": []}\n\n',
        b'data: {"choices": [{"index": 0, "finish_reason": "stop"}]}\n\n',
        chunk({"content": None, "tool_calls": None}),
    ],
    ids=str,
)
def test_what_has_no_words_counts_for_nothing(event: bytes) -> None:
    assert transcript(event).words == 0


def test_events_that_arrive_together_are_counted_one_by_one() -> None:
    assert transcript(chunk({"content": "a"}) + b": ping\r\n\r\n" + chunk({"content": "b"})).words == 2


@pytest.mark.parametrize(
    "answer",
    [(500, {}), (404, {"detail": "Not Found"}), (307, {}), (200, {}), (200, {"count": "3"}), (200, [])],
    ids=str,
)
async def test_a_backend_that_does_not_count_leaves_the_usage_unreadable(counting: Counting, answer: Any) -> None:
    counting.answer = answer

    with pytest.raises(UsageUnreadable):
        await counting.count(transcript(chunk({"content": "a"})), prepared())


async def test_a_backend_that_is_gone_leaves_the_usage_unreadable(counting: Counting) -> None:
    counting.backend.url = "http://127.0.0.1:1"

    with pytest.raises(UsageUnreadable):
        await counting.count(transcript(chunk({"content": "a"})), prepared())
