"""A program quotes in its own currency, the account is charged in the account's."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from hashlib import sha256
from math import ceil

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.events import PRICE_BOOK, Event, ProgramAssigned, ProgramPublished, RatePublished, StoredEvent, encode_event
from pricing import NoExchangeRate, PriceBook, Span

START = datetime(2026, 1, 1, tzinfo=UTC)
TEXT = """
id = "p"
currency = "CNY"
[[charges]]
name = "page"
meter = "pages"
price = 0.07
"""


def day(number: float) -> datetime:
    return START + timedelta(days=number)


def rate(value: str, *, since: float = 0, currency: str = "CNY") -> RatePublished:
    return RatePublished(
        currency=currency, account_currency="USD", rate=Decimal(value), effective_from=day(since), published_by="anna"
    )


def book_of(*rates: RatePublished) -> PriceBook:
    book = PriceBook()
    published = ProgramPublished(
        program="p", version=1, text=TEXT, digest=sha256(TEXT.encode()).hexdigest(), published_by="anna"
    )
    assigned = ProgramAssigned(program="p", version=1, model="m", effective_from=START, assigned_by="anna")
    for position, event in enumerate((published, assigned, *rates), start=1):
        book.apply(StoredEvent(position=position, stream_id=PRICE_BOOK, seq=position, at=START, event=event))
    return book


def charged(book: PriceBook, pages: int, *, at: float = 1, currency: str | None = "USD") -> int:
    return book.resolve(model="m", operation="ocr", at=day(at), currency=currency).charge({"pages": pages})


def test_an_account_in_the_programs_currency_is_charged_without_a_rate():
    assert charged(book_of(), 3, currency="CNY") == 21_000_000
    assert charged(book_of(), 3, currency=None) == 21_000_000


def test_an_account_in_another_currency_is_charged_at_the_rate_in_effect():
    book = book_of(rate("0.14"), rate("0.15", since=10), rate("9", currency="EUR"))

    assert charged(book, 3) == 2_940_000
    assert charged(book, 3, at=9.99) == 2_940_000
    assert charged(book, 3, at=10) == 3_150_000
    assert charged(book, 3, at=1) == 2_940_000


def test_of_two_rates_that_begin_together_the_one_published_later_counts():
    assert charged(book_of(rate("0.14"), rate("0.13")), 100) == 91_000_000


def test_without_a_rate_nothing_is_charged_in_another_currency():
    with pytest.raises(NoExchangeRate):
        charged(book_of(rate("0.14", since=2)), 3)
    with pytest.raises(NoExchangeRate):
        charged(book_of(rate("0.14")), 3, currency="EUR")


@given(st.decimals("0.000001", "1000000", places=6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_converted_charge_is_the_exact_product_rounded_up_and_never_above_its_bound(value, low, more):
    priced = book_of(rate(str(value))).resolve(model="m", operation="ocr", at=day(1), currency="USD")

    for pages in (low, low + more):
        assert priced.charge({"pages": pages}) == ceil(Fraction(value) * 7_000_000 * pages)
        assert priced.charge({"pages": pages}) <= priced.bound({"pages": Span(low, low + more)})
    assert priced.bound({"pages": low}) == priced.charge({"pages": low})


@given(st.decimals("0.000001", "1000000", places=6))
def test_a_rate_is_stored_exactly(value):
    event = rate(str(value))

    stored = msgspec.json.decode(encode_event(event), type=Event)

    assert stored == event
    assert str(stored.rate) == str(event.rate)
