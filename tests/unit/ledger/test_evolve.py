"""Books that break a rule are noticed by whoever folds them: nothing is guessed, and nothing is passed over."""

from typing import Any

import pytest
from msgspec.structs import replace

from ledger import PRICE_BOOK
from ledger.errors import LedgerCorrupt
from ledger.events import AccountOpened, CreditGranted, KeyCreated, KeyDeleted, ProgramPublished
from ledger.evolve import evolve
from ledger.state import Scope
from tests.unit.ledger.scenes import (
    NOON,
    A,
    Scene,
    create_key,
    draw,
    extend,
    funded,
    place,
    settle,
    void,
)

GRANTED = CreditGranted(amount_microcents=1, reason="r", granted_by="u")


def apply(scene: Scene, event: Any, *, stream_id: str = A) -> Scope:
    """Fold one more event over the scene's states."""
    books = scene.log.books
    return evolve(books.scope_of(stream_id, event), event, stream_id=stream_id, at=NOON)


def test_a_stream_begins_with_its_opening() -> None:
    with pytest.raises(LedgerCorrupt, match=r"first event is not account\.opened"):
        apply(Scene(), GRANTED)


def test_only_the_price_book_begins_without_an_opening_and_has_no_currency() -> None:
    event = ProgramPublished(program="list", version=1, text="…", digest="cd", published_by="u")

    state = evolve(Scope(), event, stream_id=PRICE_BOOK, at=NOON).account

    assert state is not None
    assert (state.currency, state.seq, state.posted) == ("XXX", 1, 0)


def test_an_account_is_opened_once() -> None:
    with pytest.raises(LedgerCorrupt, match="opened twice"):
        apply(funded(1), AccountOpened(currency="USD"))


def test_a_key_is_deleted_after_it_was_created() -> None:
    with pytest.raises(LedgerCorrupt, match="deleted before it was created"):
        apply(funded(1), KeyDeleted(key_id="key_1"))


@pytest.mark.parametrize("command", [settle("hold_1", 1), void("hold_1"), draw("hold_1", 1), extend("hold_1", 20)])
def test_an_ended_hold_moves_no_more(command: Any) -> None:
    scene = funded(100, place("hold_1", 10))
    kind, stored = scene.submit(command)
    event = scene.event(stored)
    assert kind == "accepted"
    if "hold_1" in scene.log.books.holds:
        scene.submit(void("hold_1"))

    with pytest.raises(LedgerCorrupt, match="hold hold_1 is not open"):
        apply(scene, event)


@pytest.mark.parametrize("wrong", [-1, 1])
@pytest.mark.parametrize("command", [settle("hold_1", 3), void("hold_1")])
def test_an_end_says_exactly_what_its_hold_still_held(command: Any, wrong: int) -> None:
    scene = funded(100, place("hold_1", 10))
    twin = funded(100, place("hold_1", 10), command)
    event = replace(twin.last(), held_microcents=10 + wrong)

    with pytest.raises(LedgerCorrupt, match="its end says"):
        apply(scene, event)


def test_more_is_never_drawn_than_is_held() -> None:
    scene = funded(100, place("hold_1", 10))
    event = replace(funded(100, place("hold_1", 10), draw("hold_1", 10)).last(), amount_microcents=11)

    with pytest.raises(LedgerCorrupt, match="below zero"):
        apply(scene, event)


def test_a_draw_above_its_hold_is_noticed_even_where_other_holds_would_cover_it() -> None:
    scene = funded(100, place("hold_1", 10), place("other", 50))
    event = replace(funded(100, place("hold_1", 10), draw("hold_1", 10)).last(), amount_microcents=11)

    with pytest.raises(LedgerCorrupt, match="below zero"):
        apply(scene, event)


def test_an_event_about_money_leaves_the_keys_alone() -> None:
    scene = funded(100, create_key(budget=50))
    before = scene.log.books.keys["key_1"]

    after = apply(scene, GRANTED)

    assert before == scene.log.books.keys["key_1"]
    assert after.key is None


def test_a_key_begins_with_nothing_spent_and_nothing_held() -> None:
    key = apply(funded(100), KeyCreated(key_id="key_1", rate_limit_rpm=5)).key

    assert key is not None
    assert (
        key.is_active,
        key.month,
        key.month_spent,
        key.month_held,
        key.next_arrival,
        key.last_used_at,
    ) == (True, "2026-11", 0, 0, None, None)
