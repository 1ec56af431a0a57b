"""Money bugs that others had, tried from outside: see ``docs/regressions.md``."""

import asyncio
import os
import secrets
import signal
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.acceptance.client import Answer, chunks_of, tokens_in
from tests.acceptance.customers import CHAT, MODEL, Customer, gather, new_customer, request, unique_prompt
from tests.acceptance.prices import MICROCENT, price_in_cents, price_of_usage
from tests.acceptance.running_demo import RunningDemo, until

#: A request that is answered at once, always the same in bytes and tokens.
QUICK: dict[str, Any] = {"max_tokens": 4, "simulate": {"tokens": 4, "token_latency_ms": 0}}
#: A stream that goes on for longer than any test.
ENDLESS: dict[str, Any] = {"max_tokens": 5000, "simulate": {"tokens": 5000, "token_latency_ms": 200}}
#: A stream of many slices that is there at once.
LONG: dict[str, Any] = {"max_tokens": 5000, "simulate": {"tokens": 5000, "token_latency_ms": 0}}


async def hold_of(demo: RunningDemo, **fields: Any) -> Decimal:
    """What such a request must be able to pay, in cents, as the refusal of somebody without money says."""
    penniless = await new_customer(demo, cents=0)
    refused = await penniless.chat(**fields)
    assert refused.status == 402
    return Decimal(refused.error["needed_cents"])


async def placed(customer: Customer) -> list[Any]:
    """The holds of the customer as they were placed."""
    events = await customer.events()
    return [msgspec.json.decode(event["payload"]) for event in events if event["type"] == "hold.placed"]


async def assert_never_overdrawn(customer: Customer) -> None:
    """After no event was more held than there was, and nothing is owed."""
    events = await customer.events()
    assert min(e["balance_microcents"] - e["held_microcents"] for e in events if e["held_microcents"] is not None) >= 0
    assert (await customer.when_no_hold_is_open())["debt_cents"] == 0


# --- admission


@pytest.mark.money_bug(2)
async def test_the_hold_of_a_rich_account_is_as_large_as_that_of_any_other(demo: RunningDemo) -> None:
    rich = await new_customer(demo, cents=10**9)
    for _ in range(5):  # and known for paying
        assert (await rich.chat(**QUICK)).status == 200

    holds = [hold["amount_microcents"] for hold in await placed(rich)]

    assert holds == [await hold_of(demo, max_tokens=QUICK["max_tokens"]) / MICROCENT] * 5


async def paths_to_post_to(demo: RunningDemo) -> list[str]:
    description = (await demo.http.get("/openapi.json")).json
    return [path for path, operations in description["paths"].items() if "post" in operations]


@pytest.mark.money_bug(8)
@pytest.mark.parametrize("cents", [0, 100])
async def test_whatever_is_posted_to_whichever_path_a_backend_sees_no_request_without_a_hold(
    demo: RunningDemo, cents: int
) -> None:
    customer = await new_customer(demo, cents=cents)
    credentials = [{}, customer.bearer(), demo.operator, customer.bearer(customer.session)]  # logging out comes last

    for headers in credentials:
        for path in await paths_to_post_to(demo):
            await demo.http.post(path, request(max_tokens=2), headers=headers)

    paid = await demo.fetch("SELECT payload ->> 'request_id' AS id FROM events WHERE type = 'hold.placed'")
    forwarded = [each["request_id"] for each in (await demo.backend.get("/_simulator/requests")).json]
    mine = {hold["request_id"] for hold in await placed(customer)}
    assert set(forwarded) <= {row["id"] for row in paid}
    assert mine <= set(forwarded)
    assert bool(mine) == bool(cents)


@pytest.mark.money_bug(12)
@pytest.mark.parametrize("limit", [{"max_tokens": 999_999_999}, {"max_completion_tokens": 10**30}, {}], ids=str)
async def test_an_absurd_limit_or_none_locks_nobody_out(demo: RunningDemo, limit: dict[str, int]) -> None:
    slice_, quick = await hold_of(demo, stream=True, **limit), await hold_of(demo, max_tokens=QUICK["max_tokens"])
    customer = await new_customer(demo, cents=slice_ + quick)

    async with customer.stream(simulate={"tokens": 500, "token_latency_ms": 200}, **limit) as hostile:
        assert hostile.status == 200
        assert (await customer.chat(**QUICK)).status == 200

    whole = price_in_cents(MODEL, input_tokens=0, output_tokens=8192)
    assert slice_ < whole
    await assert_never_overdrawn(customer)


@pytest.mark.money_bug(13)
@pytest.mark.parametrize(
    "field",
    ["previous_response_id", "conversation", "prompt", "thread_id", "input", "context", "cached_content", "file_ids"],
)
async def test_a_field_that_refers_to_something_stored_is_refused(customer: Customer, field: str) -> None:
    refused = await customer.chat(**{field: "resp_1234"})

    assert (refused.status, refused.error["param"]) == (400, field)
    assert await customer.demo.generated(refused.headers["x-request-id"]) is None


@pytest.mark.money_bug(13)
async def test_a_message_that_refers_to_something_stored_is_held_for_as_a_whole_context(demo: RunningDemo) -> None:
    spoken = {"role": "assistant", "content": None, "audio": {"id": "audio_1234"}}  # as the OpenAI API has it
    shown = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://example.com/1.png"}}]}

    holds = [await hold_of(demo, messages=[message, *unique_prompt()], max_tokens=4) for message in (spoken, shown)]

    assert holds[0] == holds[1]


@pytest.mark.money_bug(47)
async def test_a_budget_holds_while_nothing_follows_the_log(demo: RunningDemo) -> None:
    needed = await hold_of(demo, max_tokens=QUICK["max_tokens"])
    customer = await new_customer(demo, monthly_budget_cents=needed)
    (background,) = demo.children("worker")

    os.kill(background, signal.SIGSTOP)
    try:
        answers = [await customer.chat(**QUICK) for _ in range(2)]
        lines = await customer.get("/v1/usage/logs")
    finally:
        os.kill(background, signal.SIGCONT)

    assert [answer.status for answer in answers] == [200, 402]
    assert answers[1].error["reason"] == "budget_exceeded"
    assert lines.json == []  # what is shown of it is behind; what decides is not


# --- the life of a hold


@pytest.mark.money_bug(14)
async def test_whenever_a_client_hangs_up_its_hold_ends(customer: Customer) -> None:
    async def hang_up_after(delay_s: float, *, stream: bool) -> None:
        asking = asyncio.create_task(customer.chat(stream=stream, simulate={"tokens": 30, "token_latency_ms": 1}))
        await asyncio.wait({asking}, timeout=delay_s)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    for delay_ms in range(60):  # from before it is heard until after it is answered
        await gather(*(hang_up_after(delay_ms / 1000, stream=stream) for stream in (False, True)))

    account = await customer.when_no_hold_is_open()
    ends = Counter(await customer.event_types())
    generated = [await customer.demo.generated(hold["request_id"]) for hold in await placed(customer)]
    assert ends["hold.placed"] == ends["hold.settled"] + ends["hold.voided"] > 0
    assert account["spent_cents"] <= sum(
        price_in_cents(MODEL, input_tokens=each.prompt_tokens, output_tokens=each.completion_tokens)
        for each in generated
        if each is not None
    )


@pytest.mark.money_bug(21)
async def test_no_id_of_the_clients_becomes_the_id_of_a_hold(customer: Customer) -> None:
    first = await customer.chat(**QUICK)
    hold_id, request_id = first.headers["x-tollgate-hold-id"], first.headers["x-request-id"]
    old = {"x-tollgate-hold-id": hold_id, "x-request-id": request_id, "Idempotency-Key": hold_id}

    again = await customer.demo.http.post(
        CHAT, request(max_tokens=4, request_id=hold_id, user=hold_id), headers=customer.bearer(tokens=4) | old
    )

    holds = await placed(customer)
    assert [first.status, again.status] == [200, 200]
    assert [hold["hold_id"] for hold in holds] == [hold_id, again.headers["x-tollgate-hold-id"]]
    assert len({hold["hold_id"] for hold in holds}) == len({hold["request_id"] for hold in holds}) == 2
    assert await customer.balance() == 100 - sum(
        price_of_usage(MODEL, answer.json["usage"]) for answer in (first, again)
    )


@pytest.mark.money_bug(23)
async def test_the_balance_that_is_shown_is_the_one_that_admits(demo: RunningDemo) -> None:
    held, needed = await hold_of(demo, stream=True, max_tokens=5000), await hold_of(demo, max_tokens=1000)
    customer = await new_customer(demo, cents=held + needed - MICROCENT)

    async with customer.stream(**ENDLESS) as stream:
        assert stream.status == 200
        shown = (await customer.get("/v1/users/me", secret=customer.session)).json
        refused = await customer.chat(max_tokens=1000)
        await demo.grant(customer.account_id, MICROCENT)
        enough = (await customer.get("/v1/users/me", secret=customer.session)).json
        admitted = await customer.chat(max_tokens=1000)

    assert (shown["available_cents"], shown["held_cents"]) == (needed - MICROCENT, held)
    assert refused.error["available_cents"] == shown["available_cents"]
    assert enough["available_cents"] == needed
    assert [refused.status, admitted.status] == [402, 200]


@pytest.mark.money_bug(24)
async def test_what_a_request_has_set_aside_cannot_be_withdrawn_meanwhile(demo: RunningDemo) -> None:
    held = await hold_of(demo, stream=True, max_tokens=5000)
    customer = await new_customer(demo, cents=held + 1)

    async with customer.stream(**ENDLESS) as stream:
        assert stream.status == 200
        answers = await gather(*(withdraw(customer, cents) for cents in [1, 1, 1, 1, 1 + held]))
        more = [await withdraw(customer, cents) for cents in (held, MICROCENT)]
        account = await customer.account()

    assert Counter(answer.status for answer in answers) == {201: 1, 402: 4}
    assert [answer.status for answer in more] == [402, 402]
    assert (account["available_cents"], account["held_cents"], account["debt_cents"]) == (0, held, 0)


async def withdraw(customer: Customer, cents: Decimal | int) -> Answer:
    body = {"account_id": customer.account_id, "amount_cents": -cents, "reason": "acceptance"}
    headers = {**customer.demo.operator, "Idempotency-Key": secrets.token_hex(8)}
    return await customer.demo.http.post("/v1/admin/adjustments", body, headers=headers)


# --- usage


@pytest.mark.money_bug(34)
async def test_more_tokens_than_a_context_has_are_not_believed(demo: RunningDemo) -> None:
    customer = await new_customer(demo)

    answer = await customer.chat(max_tokens=3, simulate={"overrun": 50_000, "token_latency_ms": 0})

    assert answer.status == 502
    assert await customer.balance() == 100


# --- prices


FREE = """
id = "free"
currency = "USD"
not_charged = ["cached_input_tokens", "reasoning_tokens"]

[[charges]]
name = "tokens"
meter = "input_tokens + output_tokens"
price = 0
"""


async def give_away(customer: Customer, file: Path) -> None:
    """Let the customer have MODEL for nothing, and wait until every worker knows."""
    published = await customer.demo.command("prices", "publish", str(file))
    version = published.out.split()[0]
    assigned = await customer.demo.command(
        "prices", "assign", version, MODEL, "--confirm", "--account", customer.account_id
    )
    assert (published.status, assigned.status) == (0, 0), (published, assigned)

    async def known_everywhere() -> bool:
        quotes = await gather(*(dry_run(customer) for _ in range(20)))
        return {quote.json["max_hold_cents"] for quote in quotes} == {0}

    await until(known_everywhere)


async def dry_run(customer: Customer) -> Answer:
    return await customer.demo.http.post(CHAT, request(), headers={**customer.bearer(), "x-tollgate-dry-run": "true"})


@pytest.mark.money_bug(40)
async def test_what_costs_nothing_needs_neither_balance_nor_budget_and_is_served_to_its_end(
    demo: RunningDemo, tmp_path: Path
) -> None:
    customer = await new_customer(demo, cents=0, monthly_budget_cents=0)
    file = tmp_path / "free.toml"
    file.write_text(FREE)
    await give_away(customer, file)

    plain, stream = await customer.chat(**QUICK), await customer.chat(stream=True, **LONG)

    assert (plain.status, plain.headers["x-tollgate-cost-cents"]) == (200, "0")
    assert chunks_of(stream.body)[-1]["choices"][0]["finish_reason"] == "stop"
    assert tokens_in(stream.body) == LONG["max_tokens"]
    assert Counter(await customer.event_types())["hold.settled"] == 2
    assert (await customer.when_no_hold_is_open())["spent_cents"] == 0
