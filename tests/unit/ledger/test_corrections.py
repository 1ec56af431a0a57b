"""A charge is corrected any number of times, each from where the one before left it, and never below zero."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from ledger.errors import LedgerCorrupt
from ledger.evolve import evolve
from ledger.money import MAX_AMOUNT
from tests.unit.ledger.scenes import (
    NOON,
    A,
    B,
    create_key,
    draw,
    expire,
    funded,
    grant,
    open_account,
    place,
    rerate,
    settle,
    void,
)


def charged(amount: int) -> Any:
    """An account with a credit of 100, one settlement, and a hold of 20 that is open."""
    return funded(100, place("other", 20), place("hold_1", 50), settle("hold_1", amount))


@pytest.mark.parametrize(
    ("before", "after", "more", "less", "available"),
    [
        # credit 100, another hold of 20 is open: what a charge becomes, what moves, and what is left
        (40, 50, 10, 0, 30),
        (40, 30, 0, 10, 50),
        (40, 0, 0, 40, 80),
        (0, 80, 80, 0, 0),
        (120, 90, 0, 30, -10),  # what was debt is less of it
    ],
)
def test_a_correction_moves_the_difference_and_leaves_the_holds_alone(
    before: int, after: int, more: int, less: int, available: int
) -> None:
    scene = charged(before)

    kind, _ = scene.submit(rerate("hold_1", after))

    event = scene.last()
    assert kind == "accepted"
    assert (before, after) == (event.before_microcents, event.after_microcents)
    assert (more, less) == (event.charged_microcents, event.refunded_microcents)
    assert (available, 20) == scene.money()[:2]
    assert after == scene.log.books.accounts[A].spent


@pytest.mark.money_bug(24)
@pytest.mark.parametrize("after", [121, 200])
def test_a_charge_upwards_that_the_free_balance_does_not_cover_is_refused(after: int) -> None:
    refusal = charged(40).refusal(rerate("hold_1", after))

    assert type(refusal).__name__ == "InsufficientFunds"
    assert (after - 40, 40) == (refusal.needed, refusal.available)


def test_in_debt_nothing_is_charged_upwards_and_everything_is_refunded() -> None:
    scene = charged(120)

    refusal = scene.refusal(rerate("hold_1", 121))
    kind, _ = scene.submit(rerate("hold_1", 119))

    assert (type(refusal).__name__, kind) == ("InsufficientFunds", "accepted")
    assert scene.money() == (-39, 20, 39)


def test_the_second_correction_begins_from_the_corrected_amount() -> None:
    scene = charged(40)
    scene.submit(rerate("hold_1", 50))

    scene.submit(rerate("hold_1", 45, ordinal=2))

    event = scene.last()
    assert (event.ordinal, event.before_microcents, event.refunded_microcents) == (2, 50, 5)
    assert event.charge_seq == scene.log.stream(A)[4].seq


def test_of_two_first_corrections_the_one_that_comes_second_is_refused_even_if_it_says_the_same_amount() -> None:
    scene = charged(40)

    one, two = scene.group(rerate("hold_1", 50), replace(rerate("hold_1", 50), reason="another"))

    assert (one[0], type(two[1]).__name__) == ("accepted", "IdempotencyMismatch")


def test_each_draw_of_a_hold_is_a_charge_of_its_own_also_while_the_hold_is_open() -> None:
    scene = funded(100, place("hold_1", 50), draw("hold_1", 10, "task_1"), draw("hold_1", 20, "task_2"))

    scene.submit(rerate("hold_1", 5, reference="task_1"))
    scene.submit(settle("hold_1", 3))
    scene.submit(rerate("hold_1", 30, reference="task_2"))
    scene.submit(rerate("hold_1", 2))

    assert scene.money() == (63, 0, 0)


@pytest.mark.parametrize(
    "command",
    [
        rerate("hold_1", 50, ordinal=2),  # there is no first correction
        rerate("hold_1", 50, ordinal=0),
        rerate("hold_1", 50, reference="task_1"),
        rerate("hold_1", 50, account=B),
        rerate("hold_1", 50, key_id="key_1"),  # it was made without a key
        rerate("other", 50),  # is open, and charged nothing
        rerate("voided", 50),
        rerate("expired", 50),
        rerate("nobody's", 50),
    ],
)
def test_what_is_no_charge_is_not_corrected(command: Any) -> None:
    scene = charged(40)
    for each in (place("voided", 1), void("voided"), place("expired", 1), expire("expired")):
        scene.submit(each)
    scene.group(open_account(B), grant(100, account=B), create_key())

    assert type(scene.refusal(command)).__name__ == "ChargeUnknown"


def test_a_correction_to_the_same_amount_moves_the_charge_to_the_right_program_and_no_money() -> None:
    scene = charged(40)
    before = scene.money()

    scene.submit(rerate("hold_1", 40))

    event = scene.last()
    assert (event.charged_microcents, event.refunded_microcents, scene.money()) == (0, 0, before)
    assert scene.submit(rerate("hold_1", 39, ordinal=2))[0] == "accepted"


@pytest.mark.parametrize("amount", [-1, MAX_AMOUNT + 1, 41.0])
def test_a_correction_says_an_amount_that_can_be_booked(amount: Any) -> None:
    assert type(charged(40).refusal(rerate("hold_1", amount))).__name__ == "InvalidAmount"


@pytest.mark.money_bug(44)
def test_the_keys_budget_counts_the_corrected_amount_in_the_month_of_its_hold_only() -> None:
    scene = funded(100, create_key(budget=60), place("hold_1", 50, key_id="key_1"), settle("hold_1", 40))
    scene.submit(rerate("hold_1", 30, key_id="key_1"))
    spent = scene.log.books.keys["key_1"].month_spent
    scene.now = NOON + timedelta(days=31)
    scene.submit(place("hold_2", 1, key_id="key_1"))

    scene.submit(rerate("hold_1", 20, ordinal=2, key_id="key_1"))

    assert (spent, scene.log.books.keys["key_1"].month_spent) == (30, 0)


def test_what_was_served_is_corrected_beyond_the_keys_budget_and_after_its_deletion() -> None:
    scene = funded(100, create_key(budget=50), place("hold_1", 50, key_id="key_1"), settle("hold_1", 40))

    kind, _ = scene.submit(rerate("hold_1", 90, key_id="key_1"))

    assert (kind, scene.log.books.keys["key_1"].month_spent) == ("accepted", 90)


def test_a_correction_whose_amounts_contradict_each_other_is_noticed_by_whoever_folds_it() -> None:
    scene = charged(40)
    scene.submit(rerate("hold_1", 50))
    event = replace(scene.last(), after_microcents=51)

    with pytest.raises(LedgerCorrupt, match=r"before \+ charged - refunded is not after"):
        evolve(scene.log.books.scope(A, None, "hold_1"), event, stream_id=A, at=NOON)
