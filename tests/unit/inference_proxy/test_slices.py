"""A stream's hold grows before the stream does, by no more than was asked for, and never past its limit."""

import asyncio
import json
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_proxy.chat import prepare
from inference_proxy.holds import RequestHold
from inference_proxy.models import Model, ModelCatalog
from inference_proxy.prepared import Prepared
from inference_proxy.slices import Slices, first_slice
from inference_proxy.sse import Part
from ledger.errors import InsufficientFunds
from ledger.money import Microcents
from pricing import Span, UsageBox

MODELS = ModelCatalog([Model(id="m", context_length=4000, hold_slice_tokens=100)])


class Account:
    """What a hold is taken from: says yes to so many tokens. It stands for the ledger and Postgres."""

    id = "hold_1"

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.covered: list[int] = []
        self.prompts: list[Any] = []

    async def extend(self, box: UsageBox) -> None:
        await asyncio.sleep(0)
        whole = box["output_tokens"]
        assert isinstance(whole, Span)
        if whole.high > self.tokens:
            zero = Microcents(0)
            raise InsufficientFunds("acct_1", "USD", needed=zero, available=zero, held=zero)
        self.covered.append(int(whole.high))
        self.prompts.append(box["input_tokens"])


def prepared(**fields: Any) -> Prepared:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True, "max_tokens": 1000}
    return prepare(json.dumps({**body, **fields}).encode(), MODELS)


def slices(account: Account, request: Prepared) -> Slices:
    return Slices(cast(RequestHold, account), request)


def part(tokens: int | None) -> Part:
    return Part(b"", None if tokens is None else {"prompt_tokens": 9, "completion_tokens": tokens})


def test_a_hold_begins_with_one_slice_for_each_answer() -> None:
    assert first_slice(prepared()) == 100
    assert first_slice(prepared(n=3)) == 300


@pytest.mark.parametrize("fields", [{"max_tokens": 100}, {"max_tokens": 7}, {"stream": False}], ids=str)
def test_what_is_no_longer_than_a_slice_or_comes_in_one_piece_is_held_in_full(fields: dict[str, Any]) -> None:
    request = prepared(**fields)

    assert first_slice(request) == request.output_limit


@pytest.mark.parametrize("partial_usage", ["tokenize", "drain"])
def test_a_stream_whose_backend_does_not_count_along_is_held_in_full(partial_usage: Any) -> None:
    models = ModelCatalog([Model(id="m", context_length=4000, hold_slice_tokens=100, partial_usage=partial_usage)])
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}).encode()

    assert first_slice(prepare(body, models)) == 4000


async def test_what_the_first_slice_covers_asks_for_nothing() -> None:
    account = Account(1000)
    own = slices(account, prepared())

    await own.cover(part(100))

    assert account.covered == []
    assert own.covers(part(100))
    assert not own.covers(part(101))


async def test_a_part_beyond_the_slice_is_covered_with_a_slice_to_spare_and_its_prompt_as_it_is() -> None:
    account = Account(1000)
    own = slices(account, prepared())

    await own.cover(part(101))

    assert account.covered == [201]
    assert account.prompts == [Span(9, 9)]


async def test_a_part_that_is_not_counted_is_covered_in_full() -> None:
    account = Account(2000)
    own = slices(account, prepared(n=2))

    await own.cover(part(None))

    assert account.covered == [2000]


async def test_a_part_that_cannot_be_paid_is_not_covered() -> None:
    own = slices(Account(200), prepared())

    with pytest.raises(InsufficientFunds):
        await own.cover(part(101))
    assert not own.covers(part(101))


async def test_the_next_slice_is_set_aside_when_half_of_one_is_used() -> None:
    account = Account(1000)
    own = slices(account, prepared())

    own.look_ahead(part(49))
    own.look_ahead(part(50))
    own.look_ahead(part(51))
    await own.cover(part(101))

    assert account.covered == [200]


async def test_a_slice_that_was_refused_ahead_is_asked_for_again_when_it_is_needed() -> None:
    account = Account(100)
    own = slices(account, prepared())
    own.look_ahead(part(60))
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    account.tokens = 1000
    await own.cover(part(101))

    assert account.covered == [201]


async def test_what_was_set_aside_ahead_and_is_not_needed_any_more_raises_nothing() -> None:
    own = slices(Account(100), prepared())
    own.look_ahead(part(60))

    await own.close()


@pytest.mark.money_bug(22)
@given(st.integers(1, 3), st.lists(st.integers(0, 60), max_size=60), st.integers(0, 3000))
async def test_nothing_passes_that_is_not_covered_and_nothing_is_asked_for_beyond_the_limit(
    answers: int, steps: list[int], tokens: int
) -> None:
    request = prepared(n=answers)
    first = first_slice(request)
    account = Account(tokens)
    own = slices(account, request)
    sent = 0
    try:
        for step in steps:
            sent = min(sent + step, request.output_limit)
            await own.cover(part(sent))
            own.look_ahead(part(sent))
            assert sent <= max([first, *account.covered])
    except InsufficientFunds:
        assert sent > tokens - first
    finally:
        await own.close()
    assert account.covered == sorted(account.covered)
    assert max(account.covered, default=0) <= min(request.output_limit, sent + 2 * first)
