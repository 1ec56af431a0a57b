"""Whatever a backend does, every hold ends, nobody pays for what was not served, and nobody pays more than was made.

The policy, who broke against what was served:

- Refused or broken before the first byte: a native error, no charge.
- A plain answer that breaks off or does not say what it used: withheld, a native error, no charge.
- A stream that breaks off: an error event, charged is what the backend had counted with the last chunk passed on;
  nothing where no token had come.
- A stream that comes to its end and does not say what it used: it is served by then, and charged is nothing.
- A client that leaves: charged is what the backend had counted with the last chunk passed on.
"""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from itertools import product
from typing import Any

import openai
import pytest
import pytest_asyncio

from tests.acceptance.client import Answer, Http, comments_of
from tests.acceptance.customers import CHAT, MODEL, Customer, new_customer, request, unique_prompt, wishes
from tests.acceptance.prices import MICROCENT, price_in_cents
from tests.acceptance.running_demo import RunningDemo, until

TOKENS = 6
HEALTHY: dict[str, Any] = {"tokens": TOKENS, "token_latency_ms": 1}

UNREADABLE = ["missing", "null", "negative", "strings", "cached_above_prompt"]
READABLE = ["no_cached_details", "other_model", "with_finish", "every_chunk", "twice", "after_done"]


@pytest_asyncio.fixture(scope="module")
async def customer(demo: RunningDemo) -> Customer:
    """One for all tests here: each looks at what became of its own requests."""
    return await new_customer(demo)


@pytest_asyncio.fixture(scope="module")
async def one_worker(demo: RunningDemo) -> AsyncIterator[Http]:
    """A connection to one worker. Several failures in a row close its way to the backend for a while, which the
    tests after this one must not feel: each ends with a request that succeeds on the same worker."""
    http = Http(demo.information.server_url, one_connection=True)
    yield http
    await http.close()


async def ask(http: Http, customer: Customer, *, stream: bool = False, **simulate: Any) -> Answer:
    """One request to a backend with these faults, and a healthy one that shows that the account is not harmed."""
    headers = customer.bearer(**{**HEALTHY, **simulate})
    answer = await http.post(CHAT, request(stream=stream), headers=headers)
    balance = await customer.balance()
    healthy = await http.post(CHAT, request(), headers=customer.bearer(**HEALTHY))
    assert healthy.status == 200, healthy
    assert Decimal(healthy.headers["x-tollgate-balance-cents"]) == balance - Decimal(
        healthy.headers["x-tollgate-cost-cents"]
    )
    return answer


async def charge_for(customer: Customer, answer: Answer) -> Decimal:
    """What was charged for an answer; never more than for what the backend made."""
    (end,) = await customer.demo.fetch(
        "SELECT coalesce(payload ->> 'amount_microcents', '0') AS charged FROM events"
        " WHERE stream_id = $1 AND payload ->> 'request_id' = $2 AND type <> 'hold.placed'",
        customer.account_id,
        answer.headers["x-request-id"],
    )
    generated = await customer.demo.generated(answer.headers["x-request-id"])
    assert generated is not None
    most = price_in_cents(MODEL, input_tokens=generated.prompt_tokens, output_tokens=generated.completion_tokens)
    charged = int(end["charged"]) * MICROCENT
    assert 0 <= charged <= most
    assert (await customer.when_no_hold_is_open())["debt_cents"] == 0
    return charged


async def price_of(customer: Customer, answer: Answer, *, output_tokens: int) -> Decimal:
    generated = await customer.demo.generated(answer.headers["x-request-id"])
    assert generated is not None
    return price_in_cents(MODEL, input_tokens=generated.prompt_tokens, output_tokens=output_tokens)


# --- before the first byte


@pytest.mark.money_bug(14, 26)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "fault",
    [{"status": status} for status in (500, 503, 429, 401, 402, 403, 404, 408)] + [{"close_before_headers": "true"}],
    ids=str,
)
async def test_a_backend_that_fails_before_its_answer_costs_nothing(
    customer: Customer, one_worker: Http, stream: bool, fault: dict[str, Any]
) -> None:
    answer = await ask(one_worker, customer, stream=stream, **fault)

    assert answer.status == 502
    assert (answer.error["type"], answer.error["code"]) == ("service_unavailable", "backend_error")
    assert await charge_for(customer, answer) == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 422])
async def test_a_request_that_the_backend_finds_wrong_is_told_so_in_the_backends_words(
    customer: Customer, one_worker: Http, stream: bool, status: int
) -> None:
    answer = await ask(one_worker, customer, stream=stream, status=status)

    assert answer.status == 400
    assert answer.error["code"] == "invalid_request"
    assert answer.error["message"] == "This backend was told to refuse."
    assert await charge_for(customer, answer) == 0


async def test_a_prompt_beyond_the_context_is_refused_in_the_backends_words_and_costs_nothing(
    customer: Customer, one_worker: Http
) -> None:
    before = await customer.balance()
    body = request(messages=[{"role": "user", "content": "x" * 200_000}])

    answer = await one_worker.post(CHAT, body, headers=customer.bearer())

    assert answer.status == 400
    assert "maximum context length" in answer.error["message"]
    assert await customer.balance() == before
    await customer.when_no_hold_is_open()


# --- plain answers


@pytest.mark.money_bug(26, 34)
@pytest.mark.parametrize(
    "fault",
    [
        {"close_after": 3},
        {"error_after": 3},
        {"body": "wrong_length"},
        {"body": "malformed"},
        *({"usage": shape} for shape in UNREADABLE),
    ],
    ids=str,
)
async def test_a_plain_answer_that_breaks_or_cannot_be_priced_is_neither_served_nor_charged(
    customer: Customer, one_worker: Http, fault: dict[str, Any]
) -> None:
    answer = await ask(one_worker, customer, **fault)

    assert answer.status == 502
    assert answer.error["code"] == "backend_error"
    assert b"choices" not in answer.body
    assert await charge_for(customer, answer) == 0


@pytest.mark.money_bug(30, 32)
@pytest.mark.parametrize("shape", READABLE)
async def test_a_plain_answer_is_charged_by_what_was_made(customer: Customer, one_worker: Http, shape: str) -> None:
    answer = await ask(one_worker, customer, usage=shape)

    assert answer.status == 200
    assert await charge_for(customer, answer) == await price_of(customer, answer, output_tokens=TOKENS)


# --- streams


@pytest.mark.money_bug(26)
@pytest.mark.parametrize("fault", ["close_after", "error_after"])
@pytest.mark.parametrize("tokens", [0, 3])
async def test_a_stream_that_breaks_off_is_charged_for_what_arrived_and_ends_in_an_error(
    customer: Customer, one_worker: Http, fault: str, tokens: int
) -> None:
    answer = await ask(one_worker, customer, stream=True, **{fault: tokens})

    events = [line for line in answer.body.split(b"\n\n") if line.startswith(b"data: ")]
    assert answer.status == 200
    assert answer.body.count(b'"error"') == 1
    assert b'"code":"backend_error"' in events[-1]
    assert answer.body.count(b'"delta":{"content"') == tokens
    expected = await price_of(customer, answer, output_tokens=tokens) if tokens else 0
    assert await charge_for(customer, answer) == expected
    assert comments_of(answer.body)["x-tollgate-cost-cents"] == expected


@pytest.mark.parametrize("fault", ["close_after", "error_after"])
async def test_the_sdk_raises_where_a_stream_breaks_off(customer: Customer, fault: str) -> None:
    async with customer.async_sdk(max_retries=0) as client:
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=unique_prompt(),
            stream=True,
            extra_headers={"x-simulate": wishes(**HEALTHY, **{fault: 3})},
        )
        chunks = [await anext(stream) for _ in range(4)]  # the role, and three tokens
        with pytest.raises(openai.APIError) as broken:
            await anext(stream)

    assert broken.value.code == "backend_error"
    assert [bool(chunk.choices[0].delta.content) for chunk in chunks] == [False, True, True, True]


@pytest.mark.parametrize("shape", [shape for shape in UNREADABLE if shape != "cached_above_prompt"])
async def test_a_stream_that_does_not_say_what_it_used_is_not_charged_on_a_guess(
    customer: Customer, one_worker: Http, shape: str
) -> None:
    answer = await ask(one_worker, customer, stream=True, usage=shape)

    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert await charge_for(customer, answer) == 0


async def test_a_stream_whose_last_word_makes_no_sense_is_charged_by_the_word_before(
    customer: Customer, one_worker: Http
) -> None:
    """The backend counted along, and only then claimed more cached tokens than the prompt has."""
    answer = await ask(one_worker, customer, stream=True, usage="cached_above_prompt")

    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert await charge_for(customer, answer) == await price_of(customer, answer, output_tokens=TOKENS)


@pytest.mark.money_bug(27, 30, 32)
@pytest.mark.parametrize(
    ("shape", "choices"), [*product(("normal", *READABLE), (1, 2)), ("with_last_token", 1), ("final_only", 2)]
)
async def test_a_stream_is_charged_by_what_was_made_wherever_the_backend_says_it(
    customer: Customer, shape: str, choices: int
) -> None:
    before = await customer.balance()
    async with customer.async_sdk(max_retries=0) as client:
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=unique_prompt(),
            stream=True,
            n=choices,
            stream_options={"include_usage": True},
            extra_headers={"x-simulate": wishes(**HEALTHY, usage=shape)},
        )
        usages = [(chunk.choices, chunk.usage) async for chunk in stream if chunk.usage is not None]
        request_id = stream.response.headers["x-request-id"]

    generated = await customer.demo.generated(request_id)
    assert generated is not None
    assert [(found, usage.completion_tokens) for found, usage in usages if usage] == [([], choices * TOKENS)]
    assert await customer.balance() == before - price_in_cents(
        MODEL, input_tokens=generated.prompt_tokens, output_tokens=choices * TOKENS
    )


@pytest.mark.parametrize("body", ["malformed", "wrong_length"])
async def test_a_stream_with_a_flaw_that_comes_to_its_end_is_charged_as_made(
    customer: Customer, one_worker: Http, body: str
) -> None:
    """A broken event in the middle passes as it came; a connection that ends badly after [DONE] harms nobody."""
    answer = await ask(one_worker, customer, stream=True, body=body)

    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert await charge_for(customer, answer) == await price_of(customer, answer, output_tokens=TOKENS)


# --- clients that leave


@pytest.mark.money_bug(25)
async def test_a_client_that_leaves_pays_for_what_it_got_and_stops_the_backend(customer: Customer) -> None:
    before = await customer.balance()
    received = 0
    async with customer.stream(simulate={"tokens": 1000, "token_latency_ms": 20}) as stream:
        request_id = stream.headers["x-request-id"]
        async for line in stream.content:
            received += b'"content":"' in line and b'"content":""' not in line
            if received == 5:
                break

    account = await customer.when_no_hold_is_open()
    generated = await customer.demo.generated(request_id)
    kind, settled = await customer.last_event()
    assert generated is not None
    assert generated.outcome == "aborted"
    assert (kind, settled["outcome"]) == ("hold.settled", "client_gone")
    assert received <= settled["usage"]["output_tokens"] <= generated.completion_tokens < 1000
    assert before - account["posted_cents"] == price_in_cents(
        MODEL, input_tokens=generated.prompt_tokens, output_tokens=settled["usage"]["output_tokens"]
    )


@pytest.mark.money_bug(14)
async def test_many_clients_that_leave_at_once_leave_no_hold_behind(customer: Customer) -> None:
    before = await customer.balance()

    async def leave_after(lines: int) -> str:
        async with customer.stream(simulate={"tokens": 1000, "token_latency_ms": 20}) as stream:
            for _ in range(lines):
                await stream.content.readline()
            return stream.headers["x-request-id"]

    request_ids = await asyncio.gather(*(leave_after(count % 7) for count in range(40)))

    account = await customer.when_no_hold_is_open()
    made = [await customer.demo.generated(request_id) for request_id in request_ids]
    most = sum(
        price_in_cents(MODEL, input_tokens=each.prompt_tokens, output_tokens=each.completion_tokens)
        for each in made
        if each is not None
    )
    assert before - account["posted_cents"] <= most


async def leave_while_the_backend_is_silent(customer: Customer, *, stream: bool, **simulate: Any) -> None:
    """Hang up once the hold is there."""

    async def holds() -> Any:
        return (await customer.account())["open_holds"]

    asking = asyncio.create_task(customer.chat(stream=stream, simulate=simulate))
    await until(holds)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def test_a_plain_answer_that_nobody_is_left_to_get_is_not_charged(demo: RunningDemo) -> None:
    customer = await new_customer(demo)

    await leave_while_the_backend_is_silent(customer, stream=False, tokens=20, token_latency_ms=50)

    await customer.when_no_hold_is_open()
    assert await customer.balance() == 100


# --- a bound that was wrong


@pytest.mark.money_bug(15)
async def test_usage_above_the_hold_is_charged_in_full_and_never_from_other_holds(customer: Customer) -> None:
    async with customer.stream(simulate={"tokens": 2000, "token_latency_ms": 100}) as other:
        assert other.status == 200

        answer = await customer.chat(max_tokens=3, simulate={"overrun": 500, "token_latency_ms": 0})

        account = await customer.account()
        assert len(account["open_holds"]) == 1
        assert account["held_cents"] == account["open_holds"][0]["held_cents"]
    generated = await customer.demo.generated(answer.headers["x-request-id"])
    assert generated is not None
    kind, settled = next(
        (event["type"], event["payload"])
        for event in await customer.events()
        if event["hold_id"] == answer.headers["x-tollgate-hold-id"] and event["type"] != "hold.placed"
    )
    assert kind == "hold.settled"
    assert '"overrun_microcents":0' not in settled
    assert Decimal(answer.headers["x-tollgate-cost-cents"]) == price_in_cents(
        MODEL, input_tokens=generated.prompt_tokens, output_tokens=500
    )
    await customer.when_no_hold_is_open()
