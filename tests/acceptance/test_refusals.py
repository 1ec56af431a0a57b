"""What is not served is refused in the words of the catalog: never a 500, never forwarded, never written."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import openai
import pytest
import pytest_asyncio

from tests.acceptance.client import Answer
from tests.acceptance.customers import CHAT, MODEL, Customer, new_customer, request, unique_prompt
from tests.acceptance.running_demo import RunningDemo

DEEP = 100_000
ASK = '"messages": [{"role": "user", "content": "Hello"}]'

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
}


@pytest_asyncio.fixture(scope="module")
async def customer(demo: RunningDemo) -> Customer:
    """One for all tests here: none of them may leave a trace."""
    return await new_customer(demo)


async def assert_nothing_happened(customer: Customer, refused: Answer, *, before: list[str]) -> None:
    assert await customer.event_types() == before
    assert await customer.demo.generated(refused.headers["x-request-id"]) is None


def assert_native(answer: Answer, status: int, code: str, param: str | None) -> None:
    assert answer.status == status, answer
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.headers["x-request-id"]
    assert set(answer.error) >= {"message", "type", "code", "param"}
    assert (answer.error["type"], answer.error["code"], answer.error["param"]) == (TYPES[status], code, param)
    assert answer.error["message"]


# --- bodies


def body(**fields: Any) -> bytes:
    return msgspec.json.encode(request(**fields))


BAD_BODIES: list[Any] = [
    pytest.param(b"", None, id="empty"),
    pytest.param(b'{"model": ', None, id="cut off"),
    pytest.param(b"[]", None, id="a list"),
    pytest.param(b"null", None, id="null"),
    pytest.param(b"\x1f\x8b\x08", None, id="not text"),
    pytest.param(b"\xef\xbb\xbf" + body(), None, id="byte order mark"),
    pytest.param(body().decode().encode("utf-16"), None, id="utf-16"),
    pytest.param(b"[" * DEEP, None, id="deep list"),
    pytest.param(b'{"a":' * DEEP, None, id="deep object"),
    pytest.param(body()[:-1] + b',"user":' + b"[" * DEEP + b"]" * DEEP + b"}", None, id="deep field"),
    pytest.param(body()[:-1] + b',"x":' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}", None, id="deep unknown field"),
    pytest.param(body()[:-1] + b',"user":"\xff\xfe"}', None, id="invalid utf-8 in a field that is passed on"),
    pytest.param(
        b'{"model":"qwen3-32b","messages":[{"role":"user","content":"\xff"}]}', None, id="invalid utf-8 in a message"
    ),
    pytest.param(
        b'{"model":"qwen3-32b","messages":[{"role":"user","content":"\\ud800"}]}', None, id="half a character"
    ),
    pytest.param(body()[:-1] + b',"temperature":NaN}', None, id="not a number"),
    pytest.param(body(model=5), "model", id="model number"),
    pytest.param(f"{{{ASK}}}".encode(), "model", id="no model"),
    pytest.param(b'{"model":"qwen3-32b"}', "messages", id="no messages"),
    pytest.param(body(messages=[]), "messages", id="empty messages"),
    pytest.param(body(messages="Hello"), "messages", id="messages text"),
    pytest.param(body(messages=[7]), "messages[0]", id="message number"),
    pytest.param(body(messages=[{"content": "no role"}]), None, id="message without role"),
    *(
        pytest.param(body(**{field: value}), field, id=f"{field} {json.dumps(value)}")
        for field, values in {
            "max_tokens": [-1, 0, "5", 1.5, True, [], {}],
            "max_completion_tokens": [-1, 0, "5"],
            "n": [-1, 0, 129, 10**30, "2", 2.5],
            "stream": ["yes", "true", 1, []],
            "stream_options": [1, "x", []],
        }.items()
        for value in values
    ),
    *(
        pytest.param(body(**{field: 9}), field, id=f"a field that nobody bounded: {field!r}")
        for field in ("best_of", "n_predict", "max_new_tokens", "a\0b")
    ),
    pytest.param(
        body(stream=True, stream_options={"include_usage": "yes"}), "stream_options.include_usage", id="usage text"
    ),
]


@pytest.mark.money_bug(9)
@pytest.mark.parametrize(("raw", "param"), BAD_BODIES)
async def test_a_body_that_is_no_chat_request_is_refused(customer: Customer, raw: bytes, param: str | None) -> None:
    before = await customer.event_types()

    answer = await customer.chat_raw(raw)

    named = answer.error["param"] if param is None and answer.status == 400 else param
    assert_native(answer, 400, "invalid_request", named)
    await assert_nothing_happened(customer, answer, before=before)


async def parts_of(size: int) -> AsyncIterator[bytes]:
    part = b"x" * 1_000_000
    for _ in range(size // len(part)):
        yield part


@pytest.mark.parametrize("size", [11_000_000, 50_000_000])
@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_that_is_too_large_is_refused(customer: Customer, size: int, announced: bool) -> None:
    before = await customer.event_types()

    answer = await customer.chat_raw(b"x" * size if announced else parts_of(size))

    assert_native(answer, 413, "payload_too_large", None)
    await assert_nothing_happened(customer, answer, before=before)


# --- what is forwarded is what was bounded


async def bill_of(customer: Customer, raw: bytes) -> tuple[int, int, int]:
    """Prompt and output tokens as generated, and by how much the charge exceeded the hold."""
    answer = await customer.demo.http.call(
        "POST", CHAT, raw=raw, headers=customer.bearer(tokens=50, token_latency_ms=0)
    )
    assert answer.status == 200, answer
    generated = await customer.demo.generated(answer.headers["x-request-id"])
    assert generated is not None
    settled = msgspec.json.decode((await customer.events())[-1]["payload"])
    assert settled["usage"]["output_tokens"] == generated.completion_tokens
    assert settled["usage"]["input_tokens"] == generated.prompt_tokens
    return generated.prompt_tokens, generated.completion_tokens, settled["overrun_microcents"]


@pytest.mark.money_bug(11)
@pytest.mark.parametrize(
    ("fields", "output"),
    [
        ('"max_tokens": 40, "max_tokens": 1', 1),
        ('"max_tokens": 1, "max_tokens": 40', 40),
        ('"max_tokens": 1, "m\\u0061x_tokens": 40', None),
        ('"max_tokens": 3, "max_completion_tokens": 40, "max_completion_tokens": 2', 2),
        ('"max_tokens": 3, "n": 4, "n": 1', 3),
        ('"max_tokens": 3, "n": 1, "n": 4', 12),
        ('"max_tokens": 3, "\\u006e": 9', 27),
        ('"max_tokens": 3, "min_tokens": 40', 3),
        ('"max_tokens": 3, "ignore_eos": true', 3),
    ],
)
async def test_a_limit_said_twice_or_in_disguise_binds_the_backend_as_it_was_paid(
    customer: Customer, fields: str, output: int | None
) -> None:
    _, generated, overrun = await bill_of(customer, f'{{"model": "{MODEL}", {fields}, {ASK}}}'.encode())

    assert overrun == 0
    assert generated == output or output is None


@pytest.mark.parametrize("second", ["messages", "m\\u0065ssages"])
async def test_messages_sent_twice_are_bounded_whichever_the_backend_reads(customer: Customer, second: str) -> None:
    long = "y" * 4000
    raw = (
        f'{{"model": "{MODEL}", "max_tokens": 1, {ASK}, "{second}": [{{"role": "user", "content": "{long}"}}]}}'
    ).encode()

    prompt, _, overrun = await bill_of(customer, raw)

    assert prompt > 1000
    assert overrun == 0


@pytest.mark.money_bug(32)
async def test_a_model_named_twice_is_priced_as_the_one_that_answers(customer: Customer) -> None:
    raw = f'{{"model": "{MODEL}", "m\\u006fdel": "deepseek-v3", "max_tokens": 1, {ASK}}}'.encode()

    answer = await customer.chat_raw(raw)

    settled = msgspec.json.decode((await customer.events())[-1]["payload"])
    assert settled["model"] == settled["price"]["program"] == answer.json["model"]


async def test_nul_in_a_message_is_text_like_any_other(customer: Customer) -> None:
    answer = await customer.chat(messages=[{"role": "user", "content": "a\0b"}])

    assert answer.status == 200


# --- models


@pytest.mark.money_bug(39)
@pytest.mark.parametrize("model", ["", "gpt-9", "a'b\"c`d", "a\0b", "../qwen3-32b", "x" * 100_000, "QWEN3-32B", "账本"])
async def test_an_unknown_model_is_refused(customer: Customer, model: str) -> None:
    before = await customer.event_types()

    answer = await customer.chat(model=model)

    assert_native(answer, 404, "model_not_found", "model")
    assert len(answer.body) < 2000
    await assert_nothing_happened(customer, answer, before=before)


# --- keys


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer tg_" + "x" * 43},
        {"Authorization": "Bearer " + "x" * 4000},
        {"Authorization": "Bearer käse"},
        {"Authorization": "Basic YTpi"},
        {"x-api-key": "tg_wrong"},
    ],
    ids=str,
)
async def test_a_request_without_a_good_key_is_refused(customer: Customer, headers: dict[str, str]) -> None:
    before = await customer.event_types()

    answer = await customer.demo.http.post(CHAT, request(), headers=headers)

    assert_native(answer, 401, "unauthorized", None)
    await assert_nothing_happened(customer, answer, before=before)


async def test_the_sdk_raises_an_authentication_error_for_a_wrong_key(customer: Customer) -> None:
    async with openai.AsyncOpenAI(base_url=customer.demo.information.base_url, api_key="tg_wrong") as client:
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(model=MODEL, messages=unique_prompt())


async def test_a_service_token_cannot_infer_because_it_has_no_account(customer: Customer) -> None:
    answer = await customer.demo.http.post(CHAT, request(), headers=customer.demo.operator)

    assert_native(answer, 403, "forbidden", None)


async def test_who_is_refused_is_refused_whatever_the_body_says(customer: Customer) -> None:
    answer = await customer.demo.http.call("POST", CHAT, raw=b"{", headers={"Authorization": "Bearer tg_wrong"})

    assert_native(answer, 401, "unauthorized", None)


# --- paths and methods


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
async def test_another_method_is_refused_with_the_one_there_is(customer: Customer, method: str) -> None:
    answer = await customer.demo.http.call(method, CHAT, headers=customer.bearer())

    assert answer.headers["Allow"] == "POST"
    if method == "HEAD":
        assert answer.status == 405
    else:
        assert_native(answer, 405, "method_not_allowed", None)


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/chat", CHAT + "/", CHAT + "x", "/V1/chat/completions", "/v1/%00"])
async def test_a_path_that_is_not_there_is_refused(customer: Customer, path: str) -> None:
    answer = await customer.demo.http.post(path, request(), headers=customer.bearer())

    assert_native(answer, 404, "not_found", None)


async def test_an_expectation_that_nobody_can_meet_is_refused(customer: Customer) -> None:
    answer = await customer.demo.http.post(CHAT, request(), headers=customer.bearer() | {"Expect": "a-miracle"})

    assert answer.status == 417
    assert answer.headers["x-request-id"].startswith("req_")


async def test_a_flood_of_bad_requests_leaves_the_good_ones_alone(customer: Customer) -> None:
    before = await customer.event_types()

    bad = [customer.chat_raw(b"[" * DEEP) for _ in range(50)]
    wrong = [customer.demo.http.post(CHAT, request(), headers={"Authorization": f"Bearer tg_{n}"}) for n in range(50)]
    good = [customer.chat(max_tokens=2) for _ in range(10)]
    answers = await asyncio.gather(*bad, *wrong, *good)

    assert [answer.status for answer in answers] == [400] * 50 + [401] * 50 + [200] * 10
    assert len(await customer.event_types()) == len(before) + 20
