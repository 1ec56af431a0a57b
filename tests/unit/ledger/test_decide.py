"""What is allowed and what is refused, as tables a bookkeeper can read; a refusal never writes anything."""

import math
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from ledger import PRICE_BOOK, PriceRef, new_id, provider_stream
from ledger.errors import AccountUnknown
from ledger.money import MAX_AMOUNT
from tests.unit.ledger.scenes import (
    NOON,
    A,
    B,
    Scene,
    adjust,
    create_key,
    delete_key,
    draw,
    expire,
    extend,
    funded,
    grant,
    open_account,
    place,
    publish,
    settle,
    top_up_below,
    void,
)

ABOUT_AN_ACCOUNT = [
    grant(1),
    adjust(1),
    top_up_below(1),
    create_key(),
    delete_key(),
    place("hold_1", 1),
    extend("hold_1", 1),
    draw("hold_1", 1),
    settle("hold_1", 1),
    void("hold_1"),
    expire("hold_1"),
]


@pytest.mark.parametrize(
    ("amount", "used", "available", "debt", "overrun"),
    [
        # credit 100, another hold of 20 is open: what the hold of 50 is settled with, and what is left
        (50, 0, 80, 0, 0),
        (50, 49, 31, 0, 0),
        (50, 50, 30, 0, 0),
        (50, 51, 29, 0, 1),
        (50, 80, 0, 0, 30),
        (50, 81, -1, 1, 31),
        (50, 200, -120, 120, 150),
        (0, 5, 75, 0, 5),
    ],
)
def test_usage_above_the_hold_takes_the_free_balance_first_and_the_rest_is_debt(
    amount: int, used: int, available: int, debt: int, overrun: int
) -> None:
    scene = funded(100, place("other", 20), place("hold_1", amount))

    scene.submit(settle("hold_1", used))

    assert (available, 20, debt) == scene.money()
    assert (overrun, debt) == (scene.last().overrun_microcents, scene.last().debt_microcents)
    assert max(amount - used, 0) == scene.last().released_microcents


def test_an_overrun_in_debt_already_is_debt_in_full() -> None:
    scene = funded(10, place("hold_1", 5), place("hold_2", 5), settle("hold_1", 25))

    scene.submit(settle("hold_2", 9))

    assert scene.money() == (-24, 0, 24)
    assert (scene.last().overrun_microcents, scene.last().debt_microcents) == (4, 4)


@pytest.mark.money_bug(15)
def test_an_overrun_leaves_the_other_holds_whole() -> None:
    scene = funded(10, place("hold_1", 5), place("hold_2", 5), settle("hold_1", 1_000))

    kind, _ = scene.submit(settle("hold_2", 5))

    assert kind == "accepted"
    assert (scene.last().overrun_microcents, scene.last().debt_microcents) == (0, 0)


def test_in_debt_no_hold_is_placed_or_enlarged_until_the_debt_is_covered() -> None:
    scene = funded(10, place("hold_1", 5), place("hold_2", 1), settle("hold_1", 11))
    assert scene.money() == (-2, 1, 2)

    small = scene.refusal(place("hold_3", 1))
    larger = scene.refusal(extend("hold_2", 2))
    scene.submit(grant(2, "covers"))
    still = scene.refusal(place("hold_3", 1))
    scene.submit(grant(1, "and_more"))
    kind, _ = scene.submit(place("hold_3", 1))

    assert [type(refusal).__name__ for refusal in (small, larger, still)] == ["InsufficientFunds"] * 3
    assert small.available == -2
    assert kind == "accepted"


@pytest.mark.money_bug(40)
def test_a_hold_of_nothing_is_placed_without_funds_and_in_debt() -> None:
    scene = funded(1, place("hold_1", 1), settle("hold_1", 9))

    kind, _ = scene.submit(place("free", 0))
    again, _ = Scene(open_account()).submit(place("free", 0))

    assert (kind, again) == ("accepted", "accepted")


def test_a_hold_takes_all_that_is_available_and_not_a_microcent_more() -> None:
    scene = funded(100, place("hold_1", 40))

    refusal = scene.refusal(place("hold_2", 61))
    kind, _ = scene.submit(place("hold_2", 60))

    assert (refusal.needed, refusal.available, refusal.held) == (61, 60, 40)
    assert kind == "accepted"
    assert scene.money() == (0, 100, 0)


@pytest.mark.parametrize(("needed", "in_flight"), [(61, True), (100, True), (101, False)])
def test_the_refusal_says_whether_only_holds_in_flight_are_in_the_way(needed: int, in_flight: bool) -> None:
    scene = funded(100, place("hold_1", 40))

    assert in_flight == scene.refusal(place("hold_2", needed)).holds_in_flight


@pytest.mark.money_bug(24)
def test_a_correction_downwards_takes_from_the_free_balance_only() -> None:
    scene = funded(100, place("hold_1", 40))

    refusal = scene.refusal(adjust(-61))
    scene.submit(adjust(-60))

    assert (refusal.needed, refusal.available) == (61, 60)
    assert scene.money() == (0, 40, 0)


def test_extending_says_a_total_so_saying_it_again_adds_nothing() -> None:
    scene = funded(100, place("hold_1", 40), extend("hold_1", 70))
    assert scene.money() == (30, 70, 0)

    scene.submit(extend("hold_1", 70))
    scene.submit(extend("hold_1", 30))

    assert scene.money() == (30, 70, 0)
    assert scene.last().amount_microcents == 0


def test_the_total_of_an_extension_counts_what_was_drawn() -> None:
    scene = funded(100, place("hold_1", 40), draw("hold_1", 30))
    assert scene.money() == (60, 10, 0)

    scene.submit(extend("hold_1", 50))

    assert scene.money() == (50, 20, 0)


def test_an_extension_prolongs_a_hold_and_never_shortens_it() -> None:
    scene = funded(100, place("hold_1", 1, lifetime_s=100))

    scene.submit(extend("hold_1", 1, lifetime_s=50))
    same = scene.log.hold("hold_1").expires_at
    scene.submit(extend("hold_1", 1, lifetime_s=150))
    later = scene.log.hold("hold_1").expires_at

    assert (NOON + timedelta(seconds=100), NOON + timedelta(seconds=150)) == (same, later)


def test_an_extension_beyond_the_available_balance_is_refused_and_the_hold_stays() -> None:
    scene = funded(100, place("hold_1", 40), place("hold_2", 50))

    refusal = scene.refusal(extend("hold_1", 51))

    assert (refusal.needed, refusal.available) == (11, 10)
    assert scene.log.hold("hold_1").held == 40


def test_draws_are_charged_against_their_hold_and_never_beyond_it() -> None:
    scene = funded(100, place("hold_1", 40), draw("hold_1", 15, "task_1"))

    refusal = scene.refusal(draw("hold_1", 26, "task_2"))
    scene.submit(draw("hold_1", 25, "task_2"))
    scene.submit(settle("hold_1", 0))

    assert (refusal.needed, refusal.left) == (26, 25)
    assert scene.money() == (60, 0, 0)
    assert (scene.last().held_microcents, scene.last().released_microcents) == (0, 0)


def test_a_hold_that_was_drawn_on_and_voided_keeps_what_was_drawn() -> None:
    scene = funded(100, place("hold_1", 40), draw("hold_1", 15), void("hold_1"))

    assert scene.money() == (85, 0, 0)


def test_a_charge_names_the_price_that_its_hold_was_placed_under() -> None:
    pinned = PriceRef(program="list", version=9, digest="ef" * 32)
    scene = funded(100, place("hold_1", 40, price=pinned, model="m-9", request_id="req_9"))

    scene.submit(draw("hold_1", 1))
    drawn = scene.last()
    scene.submit(settle("hold_1", 1))
    settled = scene.last()

    assert (pinned, pinned) == (drawn.price, settled.price)
    assert (drawn.model, drawn.request_id, settled.model, settled.request_id) == ("m-9", "req_9", "m-9", "req_9")


@pytest.mark.parametrize("end", [settle("hold_1", 1), void("hold_1")])
def test_the_end_of_a_hold_carries_what_is_said_of_how_it_was_served_and_its_placing_the_clients_tries(
    end: Any,
) -> None:
    scene = funded(100, place("hold_1", 9, retry_count=2))

    scene.submit(replace(end, served={"chunks": 3, "seconds": Decimal("0.25")}))

    assert scene.last().served == {"chunks": 3, "seconds": Decimal("0.25")}
    assert scene.event((A, 3)).retry_count == 2


def test_an_overdue_hold_is_not_expired_when_it_was_extended_in_between() -> None:
    scene = funded(100, place("hold_1", 1, lifetime_s=10))
    scene.now += timedelta(seconds=11)
    seen_overdue = scene.now
    scene.submit(extend("hold_1", 1, lifetime_s=60))

    refusal = scene.refusal(expire("hold_1", overdue_at=seen_overdue))
    scene.refusal(expire("hold_1", overdue_at=seen_overdue + timedelta(seconds=60)))
    later, _ = scene.submit(expire("hold_1", overdue_at=seen_overdue + timedelta(seconds=61)))

    assert seen_overdue + timedelta(seconds=60) == refusal.expires_at
    assert later == "accepted"


@pytest.mark.parametrize("amount", [-MAX_AMOUNT - 1, MAX_AMOUNT + 1, 2**63, 2**64, 1.0, 0.5, math.nan, math.inf])
@pytest.mark.parametrize(
    "command",
    [
        grant(1, "second"),
        adjust(1),
        place("hold_2", 1),
        replace(create_key(), monthly_budget_microcents=1),
        replace(extend("hold_1", 1), total_microcents=1),
        draw("hold_1", 1),
        settle("hold_1", 1),
    ],
)
def test_an_amount_is_a_whole_number_that_can_be_booked(command: Any, amount: Any) -> None:
    scene = funded(100, place("hold_1", 1))
    name = next(name for name in command.__struct_fields__ if name.endswith("_microcents"))

    refusal = scene.refusal(replace(command, **{name: amount}))

    assert type(refusal).__name__ == "InvalidAmount"


@pytest.mark.parametrize("command", [grant(0, "second"), adjust(0), create_key(rpm=0), create_key(rpm=-1)])
def test_what_would_book_nothing_or_allow_nothing_is_refused(command: Any) -> None:
    assert type(funded(100).refusal(command)).__name__ == "InvalidAmount"


@pytest.mark.parametrize("command", ABOUT_AN_ACCOUNT)
def test_nothing_happens_to_an_account_that_was_never_opened(command: Any) -> None:
    refusal = funded(100).refusal(replace(command, stream_id=B))

    assert type(refusal).__name__ in ("AccountUnknown", "HoldUnknown", "KeyUnknown")


@pytest.mark.parametrize("command", ABOUT_AN_ACCOUNT)
def test_one_account_cannot_touch_the_key_or_the_hold_of_another(command: Any) -> None:
    scene = funded(100, open_account(B), grant(100, account=B), create_key(), place("hold_1", 40, key_id="key_1"))
    before = scene.money()
    foreign = replace(command, stream_id=B)
    if "key_id" in command.__struct_fields__:
        foreign = replace(foreign, key_id="key_1")

    scene.submit(foreign)

    assert before == scene.money()
    assert scene.log.hold("hold_1").account_id == "acct_a"
    assert scene.log.books.keys["key_1"].account_id == "acct_a"
    assert scene.log.books.keys["key_1"].is_active


def test_a_key_id_that_another_account_has_is_refused() -> None:
    scene = funded(100, open_account(B), create_key(budget=5), delete_key())

    refusal = scene.refusal(create_key(account=B))

    assert type(refusal).__name__ == "IdempotencyMismatch"
    assert not scene.log.books.keys["key_1"].is_active


@pytest.mark.parametrize("stream_id", [PRICE_BOOK, provider_stream("stripe")])
@pytest.mark.parametrize("command", [*ABOUT_AN_ACCOUNT[:6], open_account()])
def test_the_price_book_and_a_payment_provider_are_no_accounts(command: Any, stream_id: str) -> None:
    scene = funded(100, publish())

    refusal = scene.refusal(replace(command, stream_id=stream_id))

    assert type(refusal).__name__ in ("WrongStream", "HoldUnknown", "KeyUnknown")


@pytest.mark.parametrize("account", ["acct_a", "acct_never_opened"])
def test_a_price_is_not_published_in_an_account(account: str) -> None:
    assert type(funded(100).refusal(publish(stream_id=account))).__name__ == "WrongStream"


def test_the_price_book_needs_not_be_opened() -> None:
    scene = Scene()

    first, _ = scene.submit(publish(1))
    second, place_of_second = scene.submit(publish(2))

    assert (first, second, place_of_second) == ("accepted", "accepted", (PRICE_BOOK, 2))


def test_a_deleted_key_places_no_hold_but_its_open_holds_can_still_be_settled() -> None:
    scene = funded(100, create_key(), place("hold_1", 40, key_id="key_1"), delete_key())

    refusal = scene.refusal(place("hold_2", 1, key_id="key_1"))
    kind, _ = scene.submit(settle("hold_1", 30))

    assert type(refusal).__name__ == "KeyInactive"
    assert kind == "accepted"
    assert scene.log.books.keys["key_1"].month_spent == 30


def test_every_refusal_says_in_words_and_fields_what_was_against_it() -> None:
    refusal = Scene().refusal(grant(1))

    assert isinstance(refusal, AccountUnknown)
    assert refusal.account_id == "acct_a"
    assert str(refusal) == "there is no account acct_a"


def test_new_ids_say_their_kind_and_sort_by_the_time_they_were_made() -> None:
    ids = [new_id("hold") for _ in range(1_000)]

    assert len(set(ids)) == len(ids)
    assert all(len(id_) == 31 and id_.startswith("hold_") for id_ in ids)
    # The first ten characters are the milliseconds.
    assert sorted(id_[:15] for id_ in ids) == [id_[:15] for id_ in ids]


@pytest.mark.parametrize(
    ("threshold", "amount", "monthly_cap", "is_allowed"),
    [
        (0, 1, 1, True),
        (500, 100, 100, True),
        (MAX_AMOUNT, MAX_AMOUNT, MAX_AMOUNT, True),
        (-1, 1, 1, False),
        (0, 0, 1, False),
        (0, 2, 1, False),  # the cap would never let one through
        (MAX_AMOUNT + 1, 1, 1, False),
        (0, 1, MAX_AMOUNT + 1, False),
        (0.5, 1, 1, False),
    ],
)
def test_an_automatic_topup_has_amounts_that_it_can_be_carried_out_with(
    threshold: int, amount: int, monthly_cap: int, is_allowed: bool
) -> None:
    scene = Scene(open_account())

    result = scene.submit(top_up_below(threshold, amount, monthly_cap))

    assert is_allowed == (result[0] == "accepted")
    automatic = scene.log.books.accounts[A].automatic_topup
    wanted = top_up_below(threshold, amount, monthly_cap).automatic_topup
    assert automatic == (wanted if is_allowed else None)


def test_an_automatic_topup_is_changed_and_turned_off_and_outlives_other_events() -> None:
    scene = Scene(open_account(), top_up_below(1, key="a"), grant(100), top_up_below(2, key="b"), place("hold_1", 1))

    assert scene.log.books.accounts[A].automatic_topup == top_up_below(2).automatic_topup
    scene.submit(top_up_below(None, key="c"))
    assert scene.log.books.accounts[A].automatic_topup is None
