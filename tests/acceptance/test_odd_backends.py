"""Backends that say of usage what the simulated one never says. What they did is known word by word: the test wrote it.

An answer with words in it was made of tokens, whatever its backend says in the end.
"""

import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.acceptance.client import tokens_in
from tests.acceptance.customers import MODEL, Customer, new_customer
from tests.acceptance.prices import price_in_cents
from tests.acceptance.running_demo import RunningDemo, place_for_demo

PROMPT_TOKENS, WORDS = 10, 4
COUNTED = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": WORDS}
TEXT = " word" * WORDS

#: What it says in the end of an answer of ``WORDS`` words, which it may have counted along.
NO_LENGTH: list[dict[str, Any]] = [
    {"prompt_tokens": PROMPT_TOKENS},
    {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": None},
    {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": 0},
]
OTHER_WORDS: dict[str, Any] = {"input_tokens": PROMPT_TOKENS, "output_tokens": WORDS}


class OddBackend:
    """Answers as it is told to."""

    def __init__(self) -> None:
        self.usage: Any = COUNTED  # in the end
        self.streams = True  # when it is asked to
        self._app = web.Application()
        self._app.router.add_get("/health", self._health)
        self._app.router.add_post("/v1/chat/completions", self._answer)
        self.server = TestServer(self._app)

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self.streams and (await request.json()).get("stream"):
            return web.Response(body=b"".join(self._events()), content_type="text/event-stream")
        message = {"role": "assistant", "content": TEXT}
        return web.json_response({"choices": [{"index": 0, "message": message}], "usage": self.usage})

    def _events(self) -> list[bytes]:
        words = [
            {"choices": [{"index": 0, "delta": {"content": " word"}}], "usage": {**COUNTED, "completion_tokens": count}}
            for count in range(1, WORDS + 1)
        ]
        end = {"choices": [], "usage": self.usage}
        return [*(b"data: " + msgspec.json.encode(chunk) + b"\n\n" for chunk in (*words, end)), b"data: [DONE]\n\n"]


@pytest_asyncio.fixture(scope="module")
async def odd() -> AsyncIterator[OddBackend]:
    backend = OddBackend()
    await backend.server.start_server()
    yield backend
    await backend.server.close()


@pytest.fixture(autouse=True)
def as_asked(odd: OddBackend) -> None:
    """A test tells it what is odd."""
    odd.usage, odd.streams = COUNTED, True


@pytest_asyncio.fixture(scope="module")
async def demo(odd: OddBackend) -> AsyncIterator[RunningDemo]:
    """Its only backend is the odd one. At its end the books are in order."""
    async with place_for_demo() as directory:
        demo = await RunningDemo.start(directory, workers=1)
        try:
            settings = demo.settings_file.read_text()
            demo.settings_file.write_text(settings.replace(demo.information.backend_url, str(odd.server.make_url(""))))
            workers = demo.gate_workers
            for worker in workers:  # new settings are read by new workers
                os.kill(worker, signal.SIGTERM)
            await demo.until_workers_serve(instead_of=workers)
            yield demo
            await demo.assert_books_in_order()
        finally:
            await demo.kill()


@pytest_asyncio.fixture
async def customer(demo: RunningDemo) -> Customer:
    return await new_customer(demo)


FULL = price_in_cents(MODEL, input_tokens=PROMPT_TOKENS, output_tokens=WORDS)


@pytest.mark.money_bug(29)
async def test_a_plain_answer_in_the_words_of_another_api_is_withheld_and_free(
    customer: Customer, odd: OddBackend
) -> None:
    odd.usage = OTHER_WORDS

    answer = await customer.chat()

    assert (answer.status, answer.error["code"]) == (502, "backend_error")
    assert (await customer.when_no_hold_is_open())["spent_cents"] == 0


@pytest.mark.money_bug(29)
@pytest.mark.parametrize("usage", NO_LENGTH, ids=str)
async def test_a_plain_answer_of_which_nobody_knows_the_length_is_withheld(
    customer: Customer, odd: OddBackend, usage: dict[str, Any]
) -> None:
    odd.usage = usage

    answer = await customer.chat()

    assert answer.status == 502
    assert (await customer.when_no_hold_is_open())["spent_cents"] == 0


@pytest.mark.money_bug(26, 29)
@pytest.mark.parametrize("usage", [OTHER_WORDS, COUNTED, *NO_LENGTH], ids=str)
async def test_a_stream_that_was_counted_along_is_charged_whatever_its_last_word_leaves_out(
    customer: Customer, odd: OddBackend, usage: dict[str, Any]
) -> None:
    odd.usage = usage

    answer = await customer.chat(stream=True)

    assert tokens_in(answer.body) == WORDS
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert (await customer.when_no_hold_is_open())["spent_cents"] == FULL


@pytest.mark.money_bug(26)
async def test_a_stream_that_is_answered_in_one_piece_is_charged_for_it(customer: Customer, odd: OddBackend) -> None:
    odd.usage, odd.streams = COUNTED, False

    answer = await customer.chat(stream=True)

    assert answer.json["choices"][0]["message"]["content"] == TEXT
    assert (await customer.when_no_hold_is_open())["spent_cents"] == FULL


@pytest.mark.money_bug(22)
async def test_a_stream_that_is_answered_in_one_piece_is_not_served_beyond_what_can_be_held(
    demo: RunningDemo, odd: OddBackend
) -> None:
    penniless = await new_customer(demo, cents=0)
    slice_ = (await penniless.chat(stream=True, max_tokens=8000)).error["needed_cents"]
    customer = await new_customer(demo, cents=slice_)
    odd.usage, odd.streams = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": 8000}, False

    answer = await customer.chat(stream=True, max_tokens=8000)

    assert (await customer.account())["debt_cents"] == 0
    assert answer.status != 200
