"""Balance, budget and requests per minute are exact, with many times the requests that fit sent at once to 4 workers.

What is exact: a hold is the most that a request can cost, so more is held than will be charged. Hence two ways to
count. While nothing has ended, exactly as many requests are let through as their *holds* fit. When everybody who is
told to try again does, exactly as many are answered as their *charges* fit with the last one's hold on top; this is
so in whatever order they come.
"""

import asyncio
import secrets
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import openai
import pytest

from tests.acceptance.client import Answer
from tests.acceptance.customers import CHAT, MODEL, Customer, new_customer, request, unique_prompt
from tests.acceptance.prices import price_of_usage
from tests.acceptance.running_demo import RunningDemo, until

FITTING = 8
SENT = 10 * FITTING

#: A request that is answered at once, always the same in bytes and tokens.
QUICK: dict[str, Any] = {"max_tokens": 4, "simulate": {"tokens": 4, "token_latency_ms": 0}}
#: A stream that goes on for longer than any test, and notices within moments that nobody listens.
ENDLESS: dict[str, Any] = {"max_tokens": 5000, "simulate": {"tokens": 5000, "token_latency_ms": 200}}


async def hold_of(demo: RunningDemo, **fields: Any) -> Decimal:
    """What such a request must be able to pay, in cents, as the refusal of somebody without money says."""
    penniless = await new_customer(demo, cents=0)
    refused = await penniless.chat(**fields)
    assert refused.status == 402
    return Decimal(refused.error["needed_cents"])


async def charge_of(demo: RunningDemo, **fields: Any) -> Decimal:
    answer = await (await new_customer(demo)).chat(**fields)
    return price_of_usage(MODEL, answer.json["usage"])


class Crowd:
    """Many streams asked for at once, each kept open until ``leave``."""

    def __init__(self, customer: Customer, size: int) -> None:
        self._customer = customer
        self._leave = asyncio.Event()
        self._tasks = [asyncio.create_task(self._one()) for _ in range(size)]
        self.admitted = 0
        self.refused: list[Any] = []

    async def _one(self) -> None:
        async with self._customer.stream(**ENDLESS) as stream:
            if stream.status == 200:
                self.admitted += 1
                await self._leave.wait()
            else:
                self.refused.append((stream.status, dict(stream.headers), (await stream.json())["error"]))

    async def decided(self) -> None:
        async def all_of_them() -> bool:
            return self.admitted + len(self.refused) == len(self._tasks)

        await until(all_of_them)

    async def leave(self) -> None:
        self._leave.set()
        await asyncio.gather(*self._tasks)


async def insistent(customer: Customer) -> Answer:
    """Sends a request, and again when the answer says so, for as long as it says that it may help."""
    while True:
        answer = await customer.chat(**QUICK)
        if answer.headers.get("x-should-retry") != "true":
            return answer
        await answer.wait_as_told()


async def lowest_available(customer: Customer, done: asyncio.Event) -> Decimal:
    """Watches the account as an operator, until ``done``."""
    lowest = Decimal((await customer.account())["available_cents"])
    while not done.is_set():
        lowest = min(lowest, Decimal((await customer.account())["available_cents"]))
    return lowest


async def assert_never_overdrawn(customer: Customer) -> None:
    """After no event was more held than there was."""
    events = await customer.events()
    assert min(e["balance_microcents"] - e["held_microcents"] for e in events if e["held_microcents"] is not None) >= 0


async def test_the_requests_of_one_customer_meet_every_worker(customer: Customer) -> None:
    """Without this, the tests of this file would prove nothing."""
    await asyncio.gather(*(customer.chat(**QUICK) for _ in range(64)))

    workers = await customer.demo.fetch(
        "SELECT DISTINCT payload ->> 'worker_id' FROM events WHERE stream_id = $1 AND type = 'hold.placed'",
        customer.account_id,
    )
    assert len(workers) == 4


# --- the balance


@pytest.mark.money_bug(1, 7)
async def test_exactly_as_many_requests_are_let_through_at_once_as_their_holds_fit_the_balance(
    demo: RunningDemo,
) -> None:
    needed = await hold_of(demo, max_tokens=ENDLESS["max_tokens"], stream=True)
    left_over = Decimal("0.000001")
    customer = await new_customer(demo, cents=needed * (FITTING + 1) - left_over)

    crowd = Crowd(customer, SENT)
    await crowd.decided()
    account = await customer.account()
    await crowd.leave()

    assert (crowd.admitted, len(crowd.refused)) == (FITTING, SENT - FITTING)
    assert len(account["open_holds"]) == FITTING
    assert account["held_cents"] == FITTING * needed
    assert account["available_cents"] == needed - left_over
    assert {(status, error["reason"]) for status, _, error in crowd.refused} == {(402, "holds_in_flight")}
    await customer.when_no_hold_is_open()
    await assert_never_overdrawn(customer)


async def test_a_balance_for_exactly_so_many_requests_answers_exactly_so_many(demo: RunningDemo) -> None:
    needed, charge = await hold_of(demo, max_tokens=QUICK["max_tokens"]), await charge_of(demo, **QUICK)
    cents = needed + (FITTING - 1) * charge  # the last one must still be able to hold
    customer = await new_customer(demo, cents=cents)
    done = asyncio.Event()
    watching = asyncio.create_task(lowest_available(customer, done))

    answers = await asyncio.gather(*(insistent(customer) for _ in range(SENT)))
    done.set()

    assert Counter(answer.status for answer in answers) == {200: FITTING, 402: SENT - FITTING}
    assert {answer.error["reason"] for answer in answers if answer.status == 402} == {"insufficient_funds"}
    assert await watching >= 0
    account = await customer.when_no_hold_is_open()
    assert account["posted_cents"] == cents - FITTING * charge
    assert Counter(await customer.event_types())["hold.settled"] == FITTING
    await assert_never_overdrawn(customer)
    await demo.assert_books_in_order()


@pytest.mark.money_bug(12, 53)
async def test_a_refusal_for_want_of_money_says_what_is_needed_what_is_there_and_what_would_fit(
    demo: RunningDemo,
) -> None:
    needed = await hold_of(demo, max_tokens=1000)
    customer = await new_customer(demo, cents=needed - Decimal("0.000001"))
    written = await customer.event_types()

    refused = await customer.chat(max_tokens=1000)
    affordable = await customer.chat(max_tokens=999)

    error = refused.error
    assert refused.status == 402
    assert (error["type"], error["code"], error["reason"]) == (
        "insufficient_quota",
        "payment_required",
        "insufficient_funds",
    )
    assert (error["needed_cents"], error["available_cents"], error["held_cents"]) == (
        needed,
        needed - Decimal("0.000001"),
        0,
    )
    assert "You requested up to 1000 tokens, but can only afford 999." in error["message"]
    assert refused.headers["x-should-retry"] == "false"
    assert affordable.status == 200
    assert len(await customer.event_types()) == len(written) + 2  # those of the affordable one


@pytest.mark.money_bug(3)
async def test_a_request_with_a_great_limit_is_refused_by_a_small_balance_before_it_is_forwarded(
    demo: RunningDemo,
) -> None:
    customer = await new_customer(demo, cents=Decimal("0.01"))

    refused = await customer.chat(max_tokens=1_000_000)

    assert refused.status == 402
    assert await demo.generated(refused.headers["x-request-id"]) is None


async def test_the_sdk_does_not_repeat_a_request_that_more_tries_cannot_help(demo: RunningDemo) -> None:
    penniless = await new_customer(demo, cents=0)
    tries: list[Any] = []

    async def count(response: Any) -> None:
        tries.append(response.status_code)

    async with penniless.async_sdk(
        max_retries=2, http_client=openai.DefaultAsyncHttpxClient(event_hooks={"response": [count]})
    ) as client:
        with pytest.raises(openai.APIStatusError) as refused:
            await client.chat.completions.create(model=MODEL, messages=unique_prompt())

    assert tries == [402]
    assert refused.value.code == "payment_required"
    assert refused.value.type == "insufficient_quota"


async def test_the_sdk_waits_for_money_that_only_holds_in_flight_keep_from_it(demo: RunningDemo) -> None:
    needed = await hold_of(demo, max_tokens=ENDLESS["max_tokens"], stream=True)
    customer = await new_customer(demo, cents=needed)
    tries: list[Any] = []
    told = ("retry-after", "x-should-retry")
    refused = asyncio.Event()

    async def count(response: Any) -> None:
        tries.append((response.status_code, *(response.headers.get(name) for name in told)))
        refused.set()

    async with (
        customer.stream(**ENDLESS) as stream,
        customer.async_sdk(
            max_retries=2, http_client=openai.DefaultAsyncHttpxClient(event_hooks={"response": [count]})
        ) as client,
    ):
        assert stream.status == 200
        asking = asyncio.create_task(
            client.chat.completions.create(model=MODEL, messages=unique_prompt(), max_tokens=10)
        )
        await refused.wait()
        stream.close()  # its hold ends while the SDK waits
        answer = await asking

    assert tries == [(402, "2", "true"), (200, None, None)]
    assert answer.choices


# --- the monthly budget of a key


@pytest.mark.money_bug(5, 7)
async def test_exactly_as_many_requests_are_let_through_at_once_as_their_holds_fit_the_budget(
    demo: RunningDemo,
) -> None:
    needed = await hold_of(demo, max_tokens=ENDLESS["max_tokens"], stream=True)
    customer = await new_customer(demo, cents=1000, monthly_budget_cents=needed * (FITTING + 1) - Decimal("0.000001"))

    crowd = Crowd(customer, SENT)
    await crowd.decided()
    account = await customer.account()
    await crowd.leave()

    assert (crowd.admitted, len(crowd.refused)) == (FITTING, SENT - FITTING)
    assert account["held_cents"] == FITTING * needed
    await customer.when_no_hold_is_open()
    await assert_never_overdrawn(customer)


@pytest.mark.money_bug(47, 53)
async def test_a_budget_for_exactly_so_many_requests_answers_exactly_so_many(demo: RunningDemo) -> None:
    needed, charge = await hold_of(demo, max_tokens=QUICK["max_tokens"]), await charge_of(demo, **QUICK)
    budget = needed + (FITTING - 1) * charge
    customer = await new_customer(demo, cents=1000, monthly_budget_cents=budget)

    answers = await asyncio.gather(*(insistent(customer) for _ in range(SENT)))

    assert Counter(answer.status for answer in answers) == {200: FITTING, 402: SENT - FITTING}
    (key,) = (await customer.account())["keys"]
    assert key["spent_this_month_cents"] == FITTING * charge
    last = (await customer.events())[-1]["at"]
    error = next(answer for answer in answers if answer.status == 402).error
    assert (error["reason"], error["scope"]) == ("budget_exceeded", "key")
    assert (error["limit_cents"], error["spent_cents"], error["held_cents"]) == (budget, FITTING * charge, 0)
    assert datetime.fromisoformat(error["resets_at"]) == first_of_next_month(last)
    assert error["resets_at"][:10] in error["message"]
    assert await customer.balance() == 1000 - FITTING * charge
    await assert_never_overdrawn(customer)
    await demo.assert_books_in_order()


async def test_a_spent_budget_is_the_keys_alone(demo: RunningDemo) -> None:
    customer = await new_customer(demo, monthly_budget_cents=0)
    other = await customer.new_key()

    answers = [await customer.chat(), await customer.chat(secret=other.secret)]

    assert [answer.status for answer in answers] == [402, 200]


def first_of_next_month(at: datetime) -> datetime:
    return (at.replace(day=1) + timedelta(days=32)).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


# --- requests per minute

RPM = 4
ONE_MORE_EVERY = timedelta(minutes=1) / RPM


@pytest.mark.money_bug(7)
async def test_exactly_the_requests_of_a_minute_are_let_through(demo: RunningDemo) -> None:
    customer = await new_customer(demo, rate_limit_rpm=RPM)
    began = datetime.now(UTC)

    answers = await asyncio.gather(*(customer.chat(**QUICK) for _ in range(10 * RPM)))

    # The allowance grows back while the requests are on their way; on no machine that passes this suite by one.
    grown_back = (datetime.now(UTC) - began) // ONE_MORE_EVERY
    statuses = Counter(answer.status for answer in answers)
    assert set(statuses) == {200, 429}
    assert RPM <= statuses[200] <= RPM + grown_back
    ends = Counter(await customer.event_types())
    assert (ends["hold.placed"], ends["hold.settled"]) == (statuses[200], statuses[200])
    assert "0" in {answer.headers["x-ratelimit-remaining-requests"] for answer in answers if answer.status == 200}
    await demo.assert_books_in_order()


@pytest.mark.money_bug(53)
async def test_a_refusal_for_too_many_requests_costs_nothing_and_says_when_the_next_fits(demo: RunningDemo) -> None:
    customer = await new_customer(demo, rate_limit_rpm=1)
    answered = await customer.chat(**QUICK)
    before = await customer.balance()
    written = await customer.event_types()

    refused = await customer.chat(**QUICK)

    assert [answered.status, refused.status] == [200, 429]
    assert (refused.error["type"], refused.error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert (refused.error["scope"], refused.error["limit"]) == ("key", 1)
    assert refused.headers["x-should-retry"] == "true"
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert 0 < int(refused.headers["retry-after-ms"]) <= 60_000
    for answer in (answered, refused):
        assert answer.headers["x-ratelimit-limit-requests"] == "1"
        assert answer.headers["x-ratelimit-remaining-requests"] == "0"
        assert 0 < float(answer.headers["x-ratelimit-reset-requests"].removesuffix("s")) <= 60
    assert await customer.balance() == before
    assert await customer.event_types() == written
    assert await demo.generated(refused.headers["x-request-id"]) is None


async def test_the_sdk_raises_a_rate_limit_error(demo: RunningDemo) -> None:
    customer = await new_customer(demo, rate_limit_rpm=1)
    await customer.chat(**QUICK)

    async with customer.async_sdk(max_retries=0) as client:
        with pytest.raises(openai.RateLimitError) as refused:
            await client.chat.completions.create(model=MODEL, messages=unique_prompt())

    assert refused.value.code == "rate_limit_exceeded"


@pytest.mark.money_bug(6)
async def test_a_request_refused_for_want_of_money_uses_up_no_allowance(demo: RunningDemo) -> None:
    customer = await new_customer(demo, cents=0, rate_limit_rpm=1)

    statuses = [(await customer.chat(**QUICK)).status for _ in range(2)]

    assert statuses == [402, 402]


# --- keys that end


async def test_a_deleted_key_is_refused_by_every_worker_and_its_stream_still_settles(customer: Customer) -> None:
    everywhere = 40  # enough connections to meet every worker
    await asyncio.gather(*(customer.chat(**QUICK) for _ in range(everywhere)))
    await asyncio.gather(*(customer.get("/v1/users/me") for _ in range(everywhere)))
    async with customer.stream(simulate={"tokens": 60, "token_latency_ms": 20}) as stream:
        await stream.content.readline()

        deleted = await customer.demo.http.call(
            "DELETE", f"/v1/keys/{customer.key.id}", headers=customer.bearer(customer.session)
        )
        # Where money is spent no worker needs to hear of it: the ledger refuses from this moment on.
        refused = await asyncio.gather(*(customer.chat(**QUICK) for _ in range(everywhere)))

        async def refused_everywhere() -> bool:
            answers = await asyncio.gather(*(customer.get("/v1/users/me") for _ in range(everywhere)))
            return {answer.status for answer in answers} == {401}

        await until(refused_everywhere)
        rest = await stream.content.read()

    assert deleted.status == 204
    assert {(answer.status, answer.error["code"]) for answer in refused} == {(401, "unauthorized")}
    assert rest.endswith(b"data: [DONE]\n\n")
    await customer.when_no_hold_is_open()
    assert (await customer.event_types())[-1] == "hold.settled"


async def test_a_key_of_another_account_cannot_be_deleted_and_its_existence_does_not_leak(demo: RunningDemo) -> None:
    owner, stranger = await new_customer(demo), await new_customer(demo)

    answers = [
        await demo.http.call("DELETE", f"/v1/keys/{key_id}", headers=stranger.bearer(stranger.session))
        for key_id in (owner.key.id, "key_of_nobody")
    ]

    assert [answer.status for answer in answers] == [404, 404]
    assert (await owner.chat(**QUICK)).status == 200


# --- what the money was granted by


async def test_a_grant_repeated_with_its_idempotency_key_counts_once(demo: RunningDemo) -> None:
    customer = await new_customer(demo, cents=0)
    body = {"account_id": customer.account_id, "amount_cents": 7, "reason": "once"}
    headers = {**demo.operator, "Idempotency-Key": secrets.token_hex(8)}

    answers = await asyncio.gather(*(demo.http.post("/v1/admin/grants", body, headers=headers) for _ in range(20)))
    other = await demo.http.post("/v1/admin/grants", {**body, "amount_cents": 8}, headers=headers)

    assert {answer.status for answer in answers} == {201}
    assert len({answer.body for answer in answers}) == 1
    assert (other.status, other.error["code"]) == (409, "idempotency_mismatch")
    assert await customer.balance() == 7


async def test_no_customer_can_grant_money_to_themselves(customer: Customer) -> None:
    body = {"account_id": customer.account_id, "amount_cents": 7, "reason": "mine"}

    answers = [
        await customer.demo.http.post(
            "/v1/admin/grants", body, headers={**headers, "Idempotency-Key": secrets.token_hex(8)}
        )
        for headers in (customer.bearer(), customer.bearer(customer.session), {})
    ]

    assert [answer.status for answer in answers] == [403, 403, 401]
    assert await customer.balance() == 100


async def test_a_session_pays_from_the_same_account(customer: Customer) -> None:
    answer = await customer.demo.http.post(CHAT, request(), headers=customer.bearer(customer.session))

    assert answer.status == 200
    assert await customer.balance() == 100 - price_of_usage(MODEL, answer.json["usage"])
