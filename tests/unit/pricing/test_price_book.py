"""Which program is in effect: for whom, for which operation, and as of when."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.events import (
    PRICE_BOOK,
    AccountOpened,
    PriceRef,
    ProgramAssigned,
    ProgramPublished,
    ProgramRetired,
    StoredEvent,
)
from pricing import ModelNotPriced, PriceBook, PriceBookCorrupt, ProgramNotPublished

START = datetime(2026, 1, 1, tzinfo=UTC)


def day(number: float) -> datetime:
    return START + timedelta(days=number)


def text_of(program: str, version: int) -> str:
    return f'id = "{program}"\ncurrency = "USD"\n[[charges]]\nname = "page"\nmeter = "pages"\nprice = {version}\n'


def published(program: str, version: int = 1, text: str | None = None) -> ProgramPublished:
    text = text if text is not None else text_of(program, version)
    digest = sha256(text.encode()).hexdigest()
    return ProgramPublished(program=program, version=version, text=text, digest=digest, published_by="anna")


def assigned(program: str, version: int = 1, *, since: float = 0, until: float | None = None, **target):
    return ProgramAssigned(
        program=program,
        version=version,
        model=target.pop("model", "m"),
        effective_from=day(since),
        effective_until=None if until is None else day(until),
        assigned_by="anna",
        **target,
    )


def retired(program: str, version: int = 1, *, since: float) -> ProgramRetired:
    return ProgramRetired(program=program, version=version, effective_from=day(since), retired_by="anna")


def book_of(*events) -> PriceBook:
    book = PriceBook()
    for position, event in enumerate(events, start=1):
        book.apply(StoredEvent(position=position, stream_id=PRICE_BOOK, seq=position, at=START, event=event))
    return book


def resolved(book: PriceBook, at: float = 1, *, operation: str = "chat", model: str = "m", **who) -> str | None:
    """ "program@version", or None where nothing prices."""
    try:
        ref = book.resolve(model=model, operation=operation, at=day(at), **who).ref
    except ModelNotPriced:
        return None
    return f"{ref.program}@{ref.version}"


def models_in_effect(book: PriceBook, at: datetime, **who) -> tuple[str, ...]:
    return tuple(model for model, _, _ in book.in_effect(at, **who))


def test_the_account_comes_before_its_plan_and_the_plan_before_the_list():
    book = book_of(
        *map(published, ("list", "pro", "acme")),
        assigned("acme", account_id="acct_1"),
        assigned("pro", plan="pro"),
        assigned("list"),
    )

    assert resolved(book) == "list@1"
    assert resolved(book, plan="free", account_id="acct_2") == "list@1"
    assert resolved(book, plan="pro", account_id="acct_2") == "pro@1"
    assert resolved(book, plan="pro", account_id="acct_1") == "acme@1"
    assert resolved(book, account_id="acct_1") == "acme@1"


def test_an_assignment_to_an_account_on_a_plan_holds_on_that_plan_only():
    book = book_of(
        *map(published, ("list", "both")), assigned("list"), assigned("both", plan="pro", account_id="acct_1")
    )

    assert resolved(book, plan="pro", account_id="acct_1") == "both@1"
    assert resolved(book, plan="free", account_id="acct_1") == "list@1"
    assert resolved(book, plan="pro", account_id="acct_2") == "list@1"


def test_the_operation_comes_before_every_operation_even_if_older():
    book = book_of(
        *map(published, ("chat", "any")), assigned("chat", operation="chat", since=0), assigned("any", since=5)
    )

    assert resolved(book, 9) == "chat@1"
    assert resolved(book, 9, operation="batch") == "any@1"


def test_a_plan_comes_before_the_list_even_if_the_list_names_the_operation():
    book = book_of(*map(published, ("list", "pro")), assigned("list", operation="chat"), assigned("pro", plan="pro"))

    assert resolved(book, plan="pro") == "pro@1"


def test_the_assignment_that_took_effect_last_wins_and_the_later_published_one_of_equals():
    book = book_of(
        *map(published, ("old", "new", "correction")),
        assigned("new", since=10),
        assigned("old", since=0),
        assigned("correction", since=10),
    )

    assert resolved(book, -1) is None
    assert resolved(book, 0) == "old@1"
    assert resolved(book, 9.999) == "old@1"
    assert resolved(book, 10) == "correction@1"


def test_a_limited_offer_ends_before_its_end_and_the_list_price_returns():
    book = book_of(*map(published, ("list", "offer")), assigned("list"), assigned("offer", since=5, until=10))

    assert [resolved(book, at) for at in (4, 5, 9.999, 10)] == ["list@1", "offer@1", "offer@1", "list@1"]


def test_a_retired_version_prices_nothing_and_the_next_best_does():
    book = book_of(
        published("p", 1),
        published("p", 2),
        assigned("p", 1),
        assigned("p", 2, since=5),
        retired("p", 2, since=8),
        retired("p", 2, since=9),
        retired("p", 1, since=20),
    )

    assert [resolved(book, at) for at in (4, 5, 8, 20)] == ["p@1", "p@2", "p@1", None]


def test_the_reference_pins_program_version_and_digest():
    book = book_of(published("p"), assigned("p"))
    priced = book.resolve(model="m", operation="chat", at=day(1))

    assert PriceRef(program="p", version=1, digest=sha256(text_of("p", 1).encode()).hexdigest()) == priced.ref
    assert priced.ref.digest == priced.program.digest
    assert priced.program.price({"pages": 3}).total_microcents == 3 * 10**8


def test_an_unpriced_model_is_refused_by_name():
    with pytest.raises(ModelNotPriced) as refused:
        book_of().resolve(model="m", operation="chat", at=day(1))

    assert (refused.value.model, refused.value.operation) == ("m", "chat")


def test_a_version_can_be_read_for_ever_even_when_retired():
    book = book_of(published("p"), retired("p", since=0))

    assert text_of("p", 1) == book.program("p", 1).program.text
    assert book.versions("p") == (1,)
    with pytest.raises(ProgramNotPublished, match="p@2"):
        book.program("p", 2)


def test_models_are_those_that_someone_like_this_can_use_at_that_time():
    book = book_of(
        published("p"),
        assigned("p", model="b"),
        assigned("p", model="a", since=5),
        assigned("p", model="c", account_id="acct_1"),
        assigned("p", model="d", plan="pro", until=3),
    )

    assert models_in_effect(book, day(1)) == ("b",)
    assert models_in_effect(book, day(5)) == ("a", "b")
    assert models_in_effect(book, day(5), account_id="acct_1", plan="pro") == ("a", "b", "c")
    assert models_in_effect(book, day(1), plan="pro") == ("b", "d")


def test_each_operation_with_a_price_of_its_own_is_in_effect_beside_the_one_for_all_others():
    book = book_of(published("p"), published("q"), assigned("p"), assigned("q", operation="ocr"))

    found = [(model, operation, priced.ref.program) for model, operation, priced in book.in_effect(day(1))]

    assert found == [("m", None, "p"), ("m", "ocr", "q")]


def test_history_tells_what_happened_to_a_model_or_a_program():
    events = [published("p"), published("q"), assigned("p"), assigned("q", model="other"), retired("p", since=9)]
    book = book_of(*events)

    assert events == [stored.event for stored in book.history()]
    assert [events[0], events[2], events[4]] == [stored.event for stored in book.history(model="m")]
    assert [events[1], events[3]] == [stored.event for stored in book.history(program="q")]


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([published("p"), published("p")], "publishes p@1 a second time"),
        ([assigned("p")], "p@1, which has not been published"),
        ([published("p"), assigned("p", 2)], "p@2, which has not been published"),
        ([retired("p", since=1)], "p@1, which has not been published"),
        ([AccountOpened(currency="USD")], "not an event of the price book"),
        (
            [
                msg := published("p"),
                ProgramPublished(program="q", version=1, text=msg.text + " ", digest=msg.digest, published_by="x"),
            ],
            "digest",
        ),
    ],
)
def test_events_that_contradict_each_other_stop_the_book(events, reason):
    with pytest.raises(PriceBookCorrupt, match=reason) as refused:
        book_of(*events)

    assert len(events) == refused.value.position


def test_a_stored_text_that_is_no_program_stops_the_book_when_it_is_needed():
    book = book_of(published("p", text="id = 1"), assigned("p"))

    with pytest.raises(PriceBookCorrupt, match="p@1 does not parse: line 1"):
        resolved(book)


days = st.integers(0, 6)
targets = st.fixed_dictionaries(
    {},
    optional={
        "operation": st.sampled_from(["chat", "batch"]),
        "plan": st.sampled_from(["free", "pro"]),
        "account_id": st.sampled_from(["acct_1", "acct_2"]),
        "model": st.sampled_from(["m", "n"]),
    },
)


@st.composite
def later_events(draw):
    version = draw(st.integers(1, 3))
    if draw(st.integers(0, 4)) == 0:
        return retired("p", version, since=draw(days))
    since = draw(days)
    until = draw(st.none() | days.map(lambda more: since + 1 + more))
    return assigned("p", version, since=since, until=until, **draw(targets))


def naive_resolution(events, at, *, model, operation, plan, account_id) -> str | None:
    """The rules, one after the other, over all events."""
    ranked = []
    for order, event in enumerate(events):
        if not isinstance(event, ProgramAssigned) or event.model != model:
            continue
        if event.operation not in (None, operation) or event.plan not in (None, plan):
            continue
        if event.account_id not in (None, account_id) or event.effective_from > at:
            continue
        if event.effective_until is not None and at >= event.effective_until:
            continue
        if any(
            isinstance(other, ProgramRetired) and other.version == event.version and other.effective_from <= at
            for other in events
        ):
            continue
        level = 2 if event.account_id else 1 if event.plan else 0
        ranked.append((level, event.operation is not None, event.effective_from, order, event.version))
    return f"p@{max(ranked)[-1]}" if ranked else None


@given(
    st.lists(later_events(), max_size=12), st.lists(st.tuples(st.integers(-1, 14), targets), min_size=1, max_size=12)
)
def test_resolution_as_of_any_moment_equals_the_plain_rules(events, questions):
    """The same book answers many questions, so that what it keeps of earlier answers is tested as well."""
    book = book_of(*(published("p", version) for version in (1, 2, 3)))
    for count, event in enumerate(events, start=1):
        book.apply(StoredEvent(position=10 + count, stream_id=PRICE_BOOK, seq=10 + count, at=START, event=event))
        for at, who in questions:
            asked = {"model": "m", "operation": "chat", "plan": None, "account_id": None} | who
            expected = naive_resolution(events[:count], day(at), **asked)

            assert expected == resolved(book, at, **asked)
