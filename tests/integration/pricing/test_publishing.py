"""Writing to the price book of a real ledger."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from ledger import PRICE_BOOK, Ledger
from ledger.events import ProgramAssigned, ProgramRetired, RatePublished
from pricing import ModelNotPriced, PriceJump, ProgramError, ProgramNotPublished, SecondPersonNeeded
from pricing.publishing import assign, publish, publish_rate, read_price_book, retire
from tests.conftest import Clock


def text(price: str, *, program: str = "p") -> str:
    return (
        f'id = "{program}"\ncurrency = "USD"\n[[charges]]\nname = "input"\nmeter = "input_tokens"\n'
        f"price = {price}\nper = 1_000_000\n"
    )


def assignment(clock: Clock, version: int = 1, *, program: str = "p", **more: Any) -> ProgramAssigned:
    fields = {"effective_from": clock(), "assigned_by": "anna"} | more
    return ProgramAssigned(program=program, version=version, model="m", **fields)


async def price_of(ledger: Ledger, at: datetime, tokens: int = 1_000_000) -> int:
    book = await read_price_book(ledger)
    return book.resolve(model="m", operation="chat", at=at, currency="USD").charge({"input_tokens": tokens})


async def test_a_version_is_published_once_and_never_changes(ledger: Ledger) -> None:
    first = await publish(ledger, text("0.15"), published_by="anna")
    again = await publish(ledger, text("0.15"), published_by="bert")
    second = await publish(ledger, text("0.16"), published_by="anna")

    assert (first.version, again, second.version) == (1, first, 2)
    book = await read_price_book(ledger)
    assert book.published("p", 1).text == text("0.15")
    assert book.versions("p") == (1, 2)


@pytest.mark.money_bug(41)
async def test_what_is_no_program_is_not_published(ledger: Ledger) -> None:
    with pytest.raises(ProgramError):
        await publish(ledger, "id = ", published_by="anna")

    assert await ledger.stream(PRICE_BOOK) == []


@pytest.mark.money_bug(37)
@pytest.mark.parametrize(("before", "after"), [("0.15", "150_000"), ("0.15", "0.0149"), ("0.15", "0"), ("0", "0.15")])
async def test_a_price_that_jumps_tenfold_or_more_must_be_confirmed(ledger: Ledger, before: str, after: str) -> None:
    await publish(ledger, text(before), published_by="anna")

    with pytest.raises(PriceJump, match="input"):
        await publish(ledger, text(after), published_by="anna")
    assert (await read_price_book(ledger)).versions("p") == (1,)

    assert (await publish(ledger, text(after), published_by="anna", confirmed=True)).version == 2


async def test_a_price_that_moves_tenfold_and_no_more_needs_no_confirmation(ledger: Ledger) -> None:
    await publish(ledger, text("0.15"), published_by="anna")

    assert (await publish(ledger, text("1.5"), published_by="anna")).version == 2


async def test_another_program_in_the_place_of_one_is_held_against_it(ledger: Ledger, clock: Clock) -> None:
    for program, price in (("p", "0.15"), ("q", "150_000")):
        await publish(ledger, text(price, program=program), published_by="anna")
    await assign(ledger, assignment(clock), now=clock())

    with pytest.raises(PriceJump):
        await assign(ledger, assignment(clock, program="q", account_id="acct_1"), now=clock())
    assert await price_of(ledger, clock()) == 15_000_000

    await assign(ledger, assignment(clock, program="q"), now=clock(), confirmed=True)
    assert await price_of(ledger, clock()) == 15_000_000_000_000


async def test_an_assignment_begins_and_ends_when_it_says(ledger: Ledger, clock: Clock) -> None:
    await publish(ledger, text("0.15"), published_by="anna")
    begins, ends = clock() + timedelta(hours=1), clock() + timedelta(hours=2)

    for _ in range(2):
        await assign(ledger, assignment(clock, effective_from=begins, effective_until=ends), now=clock())

    assert len(await ledger.stream(PRICE_BOOK)) == 2
    assert await price_of(ledger, begins) == 15_000_000
    for at in (clock(), begins - timedelta(microseconds=1), ends):
        with pytest.raises(ModelNotPriced):
            await price_of(ledger, at)


@pytest.mark.parametrize("more", [{"since": -1}, {"until": 0}, {"until": -1}])
async def test_an_assignment_in_the_past_or_of_no_time_is_refused(
    ledger: Ledger, clock: Clock, more: dict[str, int]
) -> None:
    await publish(ledger, text("0.15"), published_by="anna")
    begins = clock() + timedelta(seconds=more.get("since", 0))
    ends = begins + timedelta(seconds=more["until"]) if "until" in more else None

    with pytest.raises(ValueError, match="effective_"):
        await assign(ledger, assignment(clock, effective_from=begins, effective_until=ends), now=clock())

    assert len(await ledger.stream(PRICE_BOOK)) == 1


@pytest.mark.money_bug(37)
async def test_two_people_put_a_price_in_effect(ledger: Ledger, clock: Clock) -> None:
    await publish(ledger, text("0.15"), published_by="anna")

    with pytest.raises(SecondPersonNeeded):
        await assign(ledger, assignment(clock), now=clock(), two_people=True)
    await assign(ledger, assignment(clock, assigned_by="bert"), now=clock(), two_people=True)

    assert await price_of(ledger, clock()) == 15_000_000


async def test_a_retired_version_prices_nothing_and_stays_readable(ledger: Ledger, clock: Clock) -> None:
    await publish(ledger, text("0.15"), published_by="anna")
    await assign(ledger, assignment(clock), now=clock())
    end = clock() + timedelta(days=1)

    for _ in range(2):
        retirement = ProgramRetired(program="p", version=1, effective_from=end, retired_by="anna")
        await retire(ledger, retirement, now=clock())

    assert len(await ledger.stream(PRICE_BOOK)) == 3
    assert await price_of(ledger, end - timedelta(seconds=1)) == 15_000_000
    with pytest.raises(ModelNotPriced):
        await price_of(ledger, end)
    assert (await read_price_book(ledger)).program("p", 1).program.text == text("0.15")


async def test_what_was_never_published_can_neither_be_assigned_nor_retired(ledger: Ledger, clock: Clock) -> None:
    with pytest.raises(ProgramNotPublished):
        await assign(ledger, assignment(clock), now=clock())
    retirement = ProgramRetired(program="p", version=1, effective_from=clock(), retired_by="anna")
    with pytest.raises(ProgramNotPublished):
        await retire(ledger, retirement, now=clock())


@pytest.mark.parametrize(
    "more", [{"rate": "0"}, {"rate": "-1"}, {"rate": "NaN"}, {"account_currency": "CNY"}, {"since": -1}]
)
async def test_what_is_no_exchange_rate_is_refused(ledger: Ledger, clock: Clock, more: dict[str, Any]) -> None:
    rate = RatePublished(
        currency="CNY",
        account_currency=more.get("account_currency", "USD"),
        rate=Decimal(more.get("rate", "0.14")),
        effective_from=clock() + timedelta(seconds=more.get("since", 0)),
        published_by="anna",
    )

    with pytest.raises(ValueError):  # noqa: PT011
        await publish_rate(ledger, rate, now=clock())

    assert await ledger.stream(PRICE_BOOK) == []
