"""A request with an ``Idempotency-Key``, sent as often as one likes, and what comes back."""

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from tests.acceptance.asked import Asked
from tests.acceptance.client import Answer
from tests.acceptance.customers import CHAT, MODEL, Customer, request
from tests.acceptance.prices import price_in_cents
from tests.acceptance.running_demo import until

TOKENS = 6
#: How the backend answers where a test says nothing else of it.
BRIEF: dict[str, Any] = {"tokens": TOKENS, "token_latency_ms": 1}
#: An answer that is still being made when others ask for it.
SLOW: dict[str, Any] = {"tokens": 100, "token_latency_ms": 40}


class KeyedRequest:
    """One request of a customer under one key, sent as often as one likes, to the byte."""

    def __init__(self, customer: Customer, *, key: str | None = None, **fields: Any) -> None:
        self.customer = customer
        self.key = secrets.token_hex(8) if key is None else key
        self.body = request(**fields)

    async def send(
        self, headers: Mapping[str, str] | None = None, *, secret: str | None = None, **simulate: Any
    ) -> Answer:
        sent = {**self._headers(simulate, secret), **(headers or {})}
        return await self.customer.demo.http.post(CHAT, self.body, headers=sent)

    @asynccontextmanager
    async def opened(self, **simulate: Any) -> AsyncIterator[Asked]:
        """The stream, while it is read."""
        headers = self._headers(simulate)
        async with self.customer.demo.http.open("POST", CHAT, self.body, headers=headers) as response:
            yield Asked(response)

    async def send_until_answered(self, **simulate: Any) -> Answer:
        """As a client does that heeds ``x-should-retry``."""

        async def answered() -> Answer | None:
            answer = await self.send(**simulate)
            return None if is_told_to_wait(answer) else answer

        answer = await until(answered)
        assert answer is not None
        return answer

    def _headers(self, simulate: dict[str, Any], secret: str | None = None) -> dict[str, str]:
        return {**self.customer.bearer(secret, **{**BRIEF, **simulate}), "Idempotency-Key": self.key}


def is_told_to_wait(answer: Answer) -> bool:
    if answer.status == 503 and answer.error["code"] == "no_backend":  # a test's faults have opened its circuit
        return True
    if answer.status != 409 or answer.headers["x-should-retry"] != "true":
        return False
    assert answer.error["code"] == "conflict"
    assert int(answer.headers["retry-after-ms"]) > 0
    return True


def is_replay(answer: Answer) -> bool:
    return answer.headers.get("idempotent-replayed") == "true"


def words_of(answer: Answer) -> bytes:
    """Without the comments of a stream: they tell of the charge, which is made once."""
    return b"\n\n".join(event for event in answer.body.split(b"\n\n") if not event.startswith(b": "))


def assert_same_answer(first: Answer, again: Answer) -> None:
    assert (first.status, again.status) == (200, 200), (first, again)
    assert is_replay(again)
    assert words_of(again) == words_of(first)
    assert again.headers["x-tollgate-hold-id"] == first.headers["x-tollgate-hold-id"]
    assert again.headers["Content-Type"] == first.headers["Content-Type"]


async def assert_charged_once(customer: Customer, *, tokens: int = TOKENS) -> Any:
    """Of all that the customer sent, one request was charged, with so many tokens. Gives its receipt."""
    account = await customer.when_no_hold_is_open()
    [settled] = [event for event in await customer.events() if event["type"] == "hold.settled"]
    receipt = await customer.receipt(settled["hold_id"])
    made = await customer.demo.generated(receipt["request_id"])
    assert made is not None
    price = price_in_cents(MODEL, input_tokens=made.prompt_tokens, output_tokens=tokens)
    assert receipt["charged_cents"] == account["spent_cents"] == price
    return receipt


async def is_forwarded(customer: Customer) -> bool:
    """Whether the backend is at work on a request of the customer."""
    known = [event["payload"] for event in await customer.events()]
    running = (await customer.demo.backend.get("/_simulator/requests?running=1")).json
    return any(each["request_id"] in payload for each in running for payload in known)
