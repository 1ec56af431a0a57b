"""The usage endpoints tell what the backend made and what the books charged, line by line and in sums that agree."""

from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
import pytest_asyncio

from ledger import new_id
from tests.acceptance.another_process import expired_and_settled_late, submit
from tests.acceptance.customers import Customer, Key, new_customer
from tests.acceptance.prices import price_in_cents
from tests.acceptance.running_demo import RunningDemo, until

REQUESTS = 9
CHARGED = 8

SUMS = {
    "total_requests": lambda line: 1,
    "total_input_tokens": lambda line: line["input_tokens"],
    "total_cached_input_tokens": lambda line: line["cached_input_tokens"],
    "total_output_tokens": lambda line: line["output_tokens"],
    "total_cost_cents": lambda line: Decimal(line["cost_cents"]),
}


class History(msgspec.Struct):
    """What one customer did, and how it stands in their logs, newest first."""

    customer: Customer
    other_key: Key
    lines: list[Any]


@pytest_asyncio.fixture(scope="module")
async def history(demo: RunningDemo) -> History:
    customer = await new_customer(demo)
    other = await customer.new_key()
    for secret in (customer.key.secret, other.secret):
        for model in demo.information.models:
            await customer.chat(secret=secret, model=model, max_tokens=5)
            await customer.chat(secret=secret, model=model, max_tokens=5, stream=True)
    await customer.chat(simulate={"status": 400})
    return History(customer, other, await customer.usage_logs(REQUESTS))


async def read(history: History, path: str) -> Any:
    answer = await history.customer.get(path)
    assert answer.status == 200, answer
    return answer.json


def summed(lines: list[Any]) -> dict[str, Any]:
    return {name: sum(of(line) for line in lines) for name, of in SUMS.items()}


def charged(history: History) -> list[Any]:
    return [line for line in history.lines if line["status"] == "settled"]


async def test_each_request_has_a_line_with_what_the_backend_made_and_its_price(history: History) -> None:
    assert len(charged(history)) == CHARGED
    for line in charged(history):
        generated = await history.customer.demo.generated(line["request_id"])
        assert generated is not None
        assert (line["input_tokens"], line["output_tokens"]) == (generated.prompt_tokens, generated.completion_tokens)
        assert line["cost_cents"] == price_in_cents(
            line["model"], input_tokens=line["input_tokens"], output_tokens=line["output_tokens"]
        )
        assert line["operation"] == "chat.completions"
        assert line["latency_ms"] >= 0
    holds = {event["hold_id"] for event in await history.customer.events() if event["hold_id"]}
    assert {line["id"] for line in history.lines} == holds


async def test_the_lines_are_newest_first_and_add_up_to_what_the_account_spent(history: History) -> None:
    ends = [datetime.fromisoformat(line["ended_at"]) for line in history.lines]

    account = await history.customer.account()

    assert ends == sorted(ends, reverse=True)
    assert sum(Decimal(line["cost_cents"]) for line in history.lines) == account["spent_cents"]


async def test_a_request_that_failed_has_a_line_that_costs_nothing(history: History) -> None:
    failed = history.lines[0]

    assert (failed["status"], failed["cost_cents"], failed["output_tokens"]) == ("voided", 0, 0)


@pytest.mark.parametrize("limit", [1, 4, REQUESTS, 500])
async def test_pages_by_offset_give_every_line_once(history: History, limit: int) -> None:
    pages = [await read(history, f"/v1/usage/logs?limit={limit}&offset={n}") for n in range(0, REQUESTS, limit)]

    assert [line for page in pages for line in page] == history.lines


@pytest.mark.parametrize("limit", [1, 4, REQUESTS, 500])
async def test_pages_by_cursor_give_every_line_once_whatever_comes_meanwhile(history: History, limit: int) -> None:
    found: list[Any] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = await history.customer.get(f"/v1/usage/logs?limit={limit}{cursor and '&cursor=' + cursor}")
        found += answer.json
        cursor = answer.headers.get("x-next-cursor")

    assert found == history.lines


@pytest.mark.parametrize("field", ["key", "model"])
async def test_lines_are_filtered_by_key_and_by_model(history: History, field: str) -> None:
    for value in {line[field] for line in history.lines}:
        found = await read(history, f"/v1/usage/logs?{field}={value}")

        assert found == [line for line in history.lines if line[field] == value]
    assert await read(history, f"/v1/usage/logs?{field}=of-nobody") == []


async def test_lines_are_filtered_by_the_time_of_their_end_the_later_bound_left_out(history: History) -> None:
    first, last = quote(history.lines[6]["ended_at"]), quote(history.lines[2]["ended_at"])

    assert await read(history, f"/v1/usage/logs?from={first}") == history.lines[:7]
    assert await read(history, f"/v1/usage/logs?to={first}") == history.lines[7:]
    assert await read(history, f"/v1/usage/logs?from={first}&to={last}") == history.lines[3:7]
    assert await read(history, f"/v1/usage/logs?from={first}&to={first}") == []


async def test_nobody_sees_the_lines_of_another_account(history: History, customer: Customer) -> None:
    for path in ("/v1/usage/logs", f"/v1/usage/logs?key={history.other_key.id}", "/v1/usage/by-key"):
        assert (await customer.get(path)).json == []


# --- sums


async def test_the_summary_is_the_sum_of_the_lines(history: History) -> None:
    assert await read(history, "/v1/usage/summary") == summed(charged(history))


@pytest.mark.parametrize(
    ("path", "group", "of"),
    [
        ("by-model", "model", lambda line: line["model"]),
        ("by-key", "key", lambda line: line["key"]),
        ("by-day", "day", lambda line: line["ended_at"][:10]),
    ],
)
async def test_the_sums_of_each_group_are_the_sums_of_its_lines(
    history: History, path: str, group: str, of: Callable[[Any], str]
) -> None:
    expected = defaultdict(list)
    for line in charged(history):
        expected[of(line)].append(line)

    found = await read(history, f"/v1/usage/{path}")

    by_group = {row.pop(group): row for row in found}
    assert by_group == {name: summed(lines) for name, lines in expected.items()}


@pytest.mark.parametrize("path", ["summary", "by-model", "by-key", "by-day"])
async def test_sums_between_two_moments_within_a_day_count_the_lines_between_them(history: History, path: str) -> None:
    first, last = history.lines[6]["ended_at"], history.lines[2]["ended_at"]

    found = await read(history, f"/v1/usage/{path}?from={quote(first)}&to={quote(last)}")

    rows = found if isinstance(found, list) else [found]
    total = {name: sum(Decimal(row[name]) for row in rows) for name in SUMS}
    assert total == summed([line for line in history.lines[3:7] if line["status"] == "settled"])


async def test_sums_within_a_day_count_a_request_that_was_settled_after_its_hold_expired(customer: Customer) -> None:
    answer = await customer.chat(max_tokens=5)
    [charge] = (await customer.receipt(answer.headers["x-tollgate-hold-id"]))["charges"]
    await submit(customer.demo, *expired_and_settled_late(customer, new_id("hold"), charge))
    late, _, first = await customer.usage_logs(3)

    found = (await customer.get(f"/v1/usage/summary?from={quote(first['ended_at'])}")).json

    assert (late["status"], late["cost_cents"]) == ("settled_late", first["cost_cents"])
    assert found == summed([late, first])


async def test_whole_days_are_summed_as_their_lines_are(history: History) -> None:
    day = history.lines[-1]["ended_at"][:10]

    assert await read(history, f"/v1/usage/summary?from={day}") == summed(charged(history))
    assert (await read(history, f"/v1/usage/summary?to={day}"))["total_requests"] == 0
    assert (await read(history, f"/v1/usage/summary?from={day}&to={day}"))["total_requests"] == 0


# --- who may read


async def test_a_key_with_a_spent_budget_reads_no_summary_and_a_session_does(demo: RunningDemo) -> None:
    customer = await new_customer(demo, monthly_budget_cents=Decimal("0.01"))
    while (answer := await customer.chat(max_tokens=20, simulate={"tokens": 20})).status == 200:
        pass
    spender = await new_customer(demo, monthly_budget_cents=0)

    refused = await spender.get("/v1/usage/summary")
    read_by_session = await spender.get("/v1/usage/summary", secret=spender.session)

    assert (refused.status, refused.error["code"], refused.error["reason"]) == (
        402,
        "payment_required",
        "budget_exceeded",
    )
    assert (refused.error["scope"], refused.error["limit_cents"], refused.error["spent_cents"]) == ("key", 0, 0)
    assert read_by_session.status == 200
    assert (answer.status, answer.error["reason"]) == (402, "budget_exceeded")
    assert (await customer.get("/v1/usage/summary")).status == 200  # what is left is too little, but it is not spent


async def test_a_key_that_spent_its_budget_to_the_last_microcent_reads_no_summary(demo: RunningDemo) -> None:
    """A request charged above its hold can bring a key there."""
    customer = await new_customer(demo, monthly_budget_cents=Decimal("0.01"))
    await customer.chat(max_tokens=3, simulate={"overrun": 500, "token_latency_ms": 0})

    refused = await customer.get("/v1/usage/summary")

    assert refused.status == 402
    assert refused.error["spent_cents"] > refused.error["limit_cents"]
    assert refused.headers["x-should-retry"] == "false"
    assert (await customer.get("/v1/usage/logs")).status == 200


async def test_a_service_token_has_no_usage_of_its_own(demo: RunningDemo) -> None:
    answer = await demo.http.get("/v1/usage/summary", headers=demo.operator)

    assert (answer.status, answer.error["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    ("path", "param"),
    [
        *((f"logs?limit={limit}", "limit") for limit in ("0", "501", "-1", "x", "1.5", "")),
        *((f"logs?offset={offset}", "offset") for offset in ("-1", "x", "1" * 30)),
        *((f"logs?cursor={cursor}", "cursor") for cursor in ("0", "x", "9" * 30)),
        *((f"logs?{name}=a%00b", name) for name in ("key", "model")),
        *((f"{name}?page=2", "page") for name in ("logs", "summary", "by-model", "by-key", "by-day")),
        *(
            (f"{name}?{bound}={quote(moment)}", bound)
            for name in ("logs", "summary")
            for bound in ("from", "to")
            for moment in (
                "",
                "yesterday",
                "2026-13-01",
                "0001-01-01T00:00:00+05:00",
                "9999-12-31T23:00:00-05:00",
                "9999-12-31T12:00:00",
            )
        ),
    ],
)
async def test_a_question_that_makes_no_sense_is_refused_with_the_parameter(
    history: History, path: str, param: str
) -> None:
    answer = await history.customer.get(f"/v1/usage/{path}")

    assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
    assert answer.error["param"] == param


async def test_usage_follows_the_log_within_moments(customer: Customer) -> None:
    answer = await customer.chat()

    async def logged() -> bool:
        lines = (await customer.get("/v1/usage/logs")).json
        return [line["request_id"] for line in lines] == [answer.headers["x-request-id"]]

    await until(logged)
