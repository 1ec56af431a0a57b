"""Who broke a request off, when, and what it costs then, as ``docs/endings.md`` promises it.

The backend falls silent where a test needs to know to the token what has reached the client: what it sends a moment
later may have been delivered, or not.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.acceptance.asked import Asked, is_forwarded
from tests.acceptance.charges import assert_free, assert_paid, made_for
from tests.acceptance.client import comments_of, tokens_in
from tests.acceptance.customers import MODEL, Customer, new_customer
from tests.acceptance.prices import price_in_cents
from tests.acceptance.running_demo import RunningDemo
from tests.acceptance.varied_demo import DRAIN_S, DRAINED, IMPATIENT, TOKENIZED, varied_demo

TOKENS = 6
FOREVER_S = 3600

#: A model, and what its backend says of usage.
COUNTS_ALONG: dict[str, Any] = {"model": MODEL}
COUNTS_ON_DEMAND: dict[str, Any] = {"model": TOKENIZED, "usage": "final_only"}
COUNTS_AT_THE_END: dict[str, Any] = {"model": DRAINED, "usage": "final_only"}
COUNTS_LATE: dict[str, Any] = {"model": MODEL, "usage": "final_only"}  # although it is said to count along
NEVER_COUNTS: dict[str, Any] = {"model": MODEL, "usage": "missing"}

#: How it is known what was delivered of a stream that broke off, or that it is not known.
KNOWN = [COUNTS_ALONG, COUNTS_ON_DEMAND]
UNKNOWN = [COUNTS_AT_THE_END, COUNTS_LATE, NEVER_COUNTS]


@pytest_asyncio.fixture(scope="module")
async def demo() -> AsyncIterator[RunningDemo]:
    """At its end every hold has ended, and the books are in order."""
    async with varied_demo() as demo:
        yield demo
        await demo.assert_books_in_order()
        assert "Traceback" not in demo.output


@pytest_asyncio.fixture
async def customer(demo: RunningDemo) -> Customer:
    return await new_customer(demo)


async def leave_after(customer: Customer, received: int, *, model: str = MODEL, **simulate: Any) -> Asked:
    """Read so many tokens of a stream, and hang up at once."""
    async with customer.stream(model=model, simulate={"token_latency_ms": 1, **simulate}) as stream:
        asked = Asked(stream)
        await asked.read_tokens(received)
    return asked


async def leave_before_the_first_byte(customer: Customer, *, stream: bool, **simulate: Any) -> None:
    """Hang up when the backend is at work, and nothing of its answer has come."""
    asking = asyncio.create_task(customer.chat(stream=stream, simulate=simulate))
    await is_forwarded(customer)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


# --- nobody


@pytest.mark.parametrize("kind", [COUNTS_ALONG, COUNTS_ON_DEMAND, COUNTS_AT_THE_END, COUNTS_LATE], ids=str)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_comes_to_its_end_is_charged_and_its_receipt_tells_how_it_was_served(
    customer: Customer, kind: dict[str, Any], stream: bool
) -> None:
    model, usage = kind["model"], kind.get("usage", "normal")
    simulate = {"tokens": TOKENS, "token_latency_ms": 1, "usage": usage}

    answer = await customer.chat(model=model, stream=stream, simulate=simulate)

    assert answer.status == 200
    receipt = await assert_paid(customer, tokens=TOKENS, outcome="completed")
    served = receipt["served"]
    [attempt] = served["attempts"]
    assert served["delivered_tokens"] == served["generated_tokens"] == TOKENS
    assert (attempt["outcome"], attempt["status"]) == ("answered", 200)
    assert attempt["backend"] == receipt["backend"]
    assert 0 <= attempt["took_ms"] <= served["first_byte_ms"] <= served["took_ms"]


# --- the client


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_before_the_first_byte_pays_nothing_and_stops_the_backend(
    customer: Customer, stream: bool
) -> None:
    await leave_before_the_first_byte(customer, stream=stream, hang=FOREVER_S)

    receipt = await assert_free(customer, outcome="client_gone")
    assert (await made_for(customer, receipt["request_id"])).outcome == "aborted"
    assert "first_byte_ms" not in receipt["served"]
    assert [attempt["outcome"] for attempt in receipt["served"]["attempts"]] == ["cut_off"]


async def test_a_client_that_leaves_while_its_plain_answer_is_made_pays_nothing_and_stops_the_backend(
    customer: Customer,
) -> None:
    await leave_before_the_first_byte(customer, stream=False, tokens=1000, token_latency_ms=50)

    receipt = await assert_free(customer, outcome="client_gone")
    assert (await made_for(customer, receipt["request_id"])).outcome == "aborted"


@pytest.mark.money_bug(25)
@pytest.mark.parametrize("kind", KNOWN, ids=str)
@pytest.mark.parametrize("tokens", [1, TOKENS])
async def test_a_client_that_leaves_a_silent_stream_pays_what_it_got_and_stops_the_backend(
    customer: Customer, kind: dict[str, Any], tokens: int
) -> None:
    asked = await leave_after(customer, tokens, silent_after=tokens, tokens=1000, **kind)

    assert asked.tokens == tokens
    receipt = await assert_paid(customer, tokens=tokens, outcome="client_gone")
    assert (await made_for(customer, receipt["request_id"])).outcome == "aborted"


async def assert_only_words_paid(customer: Customer, *, least: int, most: int) -> None:
    """The customer's only request cost so many tokens of its answer, and nothing of its prompt."""
    [hold_id] = await customer.holds()
    receipt = await customer.receipt(hold_id)
    [charge] = receipt["charges"]
    assert (receipt["status"], receipt["outcome"]) == ("settled", "client_gone")
    assert charge["usage"]["input_tokens"] == 0
    assert least <= charge["usage"]["output_tokens"] == receipt["served"]["delivered_tokens"] <= most
    assert receipt["charged_cents"] == price_in_cents(
        MODEL, input_tokens=0, output_tokens=charge["usage"]["output_tokens"]
    )


@pytest.mark.parametrize("kind", [COUNTS_LATE, NEVER_COUNTS], ids=str)
async def test_a_client_that_leaves_a_silent_stream_of_which_nobody_knows_the_usage_pays_nothing(
    customer: Customer, kind: dict[str, Any]
) -> None:
    asked = await leave_after(customer, TOKENS, silent_after=TOKENS, tokens=1000, **kind)

    [hold_id] = await customer.holds()
    receipt = await customer.receipt(hold_id, status="voided")
    assert (receipt["status"], receipt["charged_cents"]) == ("voided", 0)
    assert (await made_for(customer, asked.request_id)).outcome == "aborted"
    assert (await customer.when_no_hold_is_open())["spent_cents"] == 0


async def test_a_silent_backend_that_counts_at_the_end_is_not_listened_to_for_longer_than_any_other(
    customer: Customer,
) -> None:
    asked = await leave_after(customer, TOKENS, silent_after=TOKENS, tokens=1000, **COUNTS_AT_THE_END)

    async with asyncio.timeout(10 * DRAIN_S):
        await assert_only_words_paid(customer, least=TOKENS, most=TOKENS)
    assert (await made_for(customer, asked.request_id)).outcome == "aborted"


@pytest.mark.parametrize("kind", KNOWN, ids=str)
async def test_a_client_that_leaves_in_the_middle_pays_no_more_than_was_sent_to_it(
    customer: Customer, kind: dict[str, Any]
) -> None:
    asked = await leave_after(customer, TOKENS, tokens=2000, **{"token_latency_ms": 20, **kind})

    receipt = await customer.receipt(asked.hold_id)
    made = await made_for(customer, asked.request_id)
    [charge] = receipt["charges"]
    assert (made.outcome, receipt["outcome"]) == ("aborted", "client_gone")
    assert asked.tokens <= charge["usage"]["output_tokens"] <= made.tokens_written < 2000
    assert charge["usage"]["output_tokens"] == receipt["served"]["delivered_tokens"]


@pytest.mark.money_bug(28)
async def test_a_client_that_leaves_a_backend_which_counts_at_the_end_pays_only_what_it_got(customer: Customer) -> None:
    """The backend goes on to its end, and says then that it made more."""
    asked = await leave_after(customer, 2, tokens=12, **{"token_latency_ms": 40, **COUNTS_AT_THE_END})

    receipt = await customer.receipt(asked.hold_id)
    made = await made_for(customer, asked.request_id)
    [charge] = receipt["charges"]
    assert (made.outcome, made.completion_tokens, receipt["outcome"]) == ("finished", 12, "client_gone")
    assert asked.tokens <= charge["usage"]["output_tokens"] == receipt["served"]["delivered_tokens"] < 12
    assert receipt["served"]["generated_tokens"] == 12


@pytest.mark.money_bug(28)
async def test_a_backend_that_counts_at_the_end_is_listened_to_for_so_long_only(customer: Customer) -> None:
    """What it would have said of the prompt is not known, and so only the words are paid."""
    asked = await leave_after(customer, 2, tokens=2000, **{"token_latency_ms": 40, **COUNTS_AT_THE_END})

    made = await made_for(customer, asked.request_id)
    await assert_only_words_paid(customer, least=asked.tokens, most=made.tokens_written)
    assert made.outcome == "aborted"


@pytest.mark.parametrize("kind", KNOWN, ids=str)
async def test_a_client_that_leaves_after_the_last_word_pays_for_all_of_it(
    customer: Customer, kind: dict[str, Any]
) -> None:
    """The backend has not said [DONE] yet, and never does."""
    await leave_after(customer, TOKENS, tokens=TOKENS, silent_after=TOKENS, **kind)

    await assert_paid(customer, tokens=TOKENS, outcome="client_gone")


@pytest.mark.parametrize("kind", [COUNTS_ALONG, COUNTS_ON_DEMAND, COUNTS_AT_THE_END], ids=str)
async def test_clients_that_leave_in_the_moment_between_the_last_word_and_done_pay_for_all_of_it(
    demo: RunningDemo, kind: dict[str, Any]
) -> None:
    customers = await asyncio.gather(*(new_customer(demo) for _ in range(8)))

    await asyncio.gather(*(leave_after(each, TOKENS, tokens=TOKENS, **kind) for each in customers))

    for customer in customers:
        [hold_id] = await customer.holds()
        outcome = (await customer.receipt(hold_id))["outcome"]
        assert outcome in ("client_gone", "completed")
        await assert_paid(customer, tokens=TOKENS, outcome=outcome)


# --- the backend


@pytest.mark.money_bug(31)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", [{"close_before_headers": "true"}, {"status": 500}], ids=str)
async def test_a_backend_that_breaks_before_its_headers_costs_nothing_and_the_receipt_names_it(
    customer: Customer, stream: bool, fault: dict[str, Any]
) -> None:
    answer = await customer.chat(stream=stream, simulate=fault)

    assert (answer.status, answer.error["code"]) == (502, "backend_error")
    receipt = await assert_free(customer, outcome="backend_failed")
    [attempt] = receipt["served"]["attempts"]
    assert attempt["outcome"] == ("refused" if "status" in fault else "broke")
    assert attempt.get("status") == fault.get("status")
    assert (await customer.chat()).status == 200  # its way is not closed to those who come after


@pytest.mark.parametrize("stream", [False, True])
async def test_a_backend_that_is_silent_before_its_headers_is_given_up_and_costs_nothing(
    customer: Customer, stream: bool
) -> None:
    answer = await customer.chat(model=IMPATIENT, stream=stream, simulate={"hang": FOREVER_S})

    assert (answer.status, answer.error["code"]) == (504, "backend_timeout")
    receipt = await assert_free(customer, outcome="backend_failed")
    assert [attempt["outcome"] for attempt in receipt["served"]["attempts"]] == ["timeout"]
    assert (await made_for(customer, answer.headers["x-request-id"])).outcome == "aborted"
    assert (await customer.chat(model=IMPATIENT)).status == 200


async def test_a_backend_that_falls_silent_in_a_plain_answer_is_given_up_and_costs_nothing(customer: Customer) -> None:
    answer = await customer.chat(model=IMPATIENT, simulate={"tokens": TOKENS, "silent_after": 3, "token_latency_ms": 1})

    assert (answer.status, answer.error["code"]) == (502, "backend_error")
    assert b"choices" not in answer.body
    await assert_free(customer, outcome="backend_failed")


async def test_a_backend_that_falls_silent_in_a_stream_is_paid_what_arrived_and_the_stream_ends_in_an_error(
    customer: Customer,
) -> None:
    simulate = {"tokens": 1000, "silent_after": TOKENS, "token_latency_ms": 1}

    answer = await customer.chat(model=IMPATIENT, stream=True, simulate=simulate)

    assert b'"code":"backend_error"' in answer.body
    assert tokens_in(answer.body) == TOKENS
    receipt = await assert_paid(customer, tokens=TOKENS, outcome="backend_failed")
    assert comments_of(answer.body)["x-tollgate-cost-cents"] == receipt["charged_cents"]


async def test_a_backend_that_is_slow_is_waited_for(customer: Customer) -> None:
    """All of it takes longer than the backend may be silent."""
    slow = {"tokens": 5, "token_latency_ms": 250, "first_token_latency_ms": 250}

    answer = await customer.chat(model=IMPATIENT, stream=True, simulate=slow)

    assert answer.body.endswith(b"data: [DONE]\n\n")
    await assert_paid(customer, tokens=5, outcome="completed")


@pytest.mark.parametrize("kind", KNOWN, ids=str)
@pytest.mark.parametrize("fault", ["close_after", "error_after"])
async def test_a_backend_that_breaks_off_a_stream_is_paid_what_arrived(
    customer: Customer, kind: dict[str, Any], fault: str
) -> None:
    model, usage = kind["model"], kind.get("usage", "normal")
    simulate = {"tokens": 1000, "token_latency_ms": 1, "usage": usage, fault: TOKENS}

    answer = await customer.chat(model=model, stream=True, simulate=simulate)

    assert b'"code":"backend_error"' in answer.body
    assert tokens_in(answer.body) == TOKENS
    await assert_paid(customer, tokens=TOKENS, outcome="backend_failed")


@pytest.mark.parametrize("kind", UNKNOWN, ids=str)
@pytest.mark.parametrize("fault", ["close_after", "error_after"])
async def test_a_backend_that_breaks_off_a_stream_before_it_said_what_it_used_is_paid_nothing(
    customer: Customer, kind: dict[str, Any], fault: str
) -> None:
    model, usage = kind["model"], kind["usage"]
    simulate = {"tokens": 1000, "token_latency_ms": 1, "usage": usage, fault: TOKENS}

    answer = await customer.chat(model=model, stream=True, simulate=simulate)

    assert b'"code":"backend_error"' in answer.body
    [hold_id] = await customer.holds()
    receipt = await customer.receipt(hold_id, status="voided")
    assert (receipt["status"], receipt["charged_cents"]) == ("voided", 0)


@pytest.mark.parametrize("fault", [{"tokenize_status": 500}, {"tokenize_hang": FOREVER_S}], ids=str)
async def test_a_backend_that_breaks_off_and_does_not_count_what_it_is_shown_is_paid_nothing(
    customer: Customer, fault: dict[str, Any]
) -> None:
    demo = customer.demo
    simulate = {"tokens": 1000, "token_latency_ms": 1, "usage": "final_only", "close_after": TOKENS}
    await demo.backend.post("/_simulator/faults", fault)
    try:
        answer = await customer.chat(model=TOKENIZED, stream=True, simulate=simulate)
    finally:
        await demo.backend.post("/_simulator/faults", {})

    assert b'"code":"backend_error"' in answer.body
    await assert_free(customer, outcome="usage_unreadable")


async def test_words_of_several_answers_are_counted_each_by_itself(customer: Customer) -> None:
    simulate = {"tokens": 1000, "token_latency_ms": 1, "usage": "final_only", "close_after": 2 * TOKENS}

    answer = await customer.chat(model=TOKENIZED, stream=True, n=2, simulate=simulate)

    assert tokens_in(answer.body) == 2 * TOKENS
    await assert_paid(customer, tokens=2 * TOKENS, outcome="backend_failed")
