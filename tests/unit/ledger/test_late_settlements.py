"""A request that was served is charged once, also when its hold had expired before: never from what others hold."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from ledger import PriceRef
from ledger.errors import LedgerCorrupt
from ledger.evolve import evolve
from ledger.money import MAX_AMOUNT
from tests.unit.ledger.scenes import (
    NOON,
    A,
    B,
    Scene,
    create_key,
    delete_key,
    draw,
    expire,
    extend,
    funded,
    grant,
    open_account,
    place,
    rerate,
    settle,
    void,
)


def expired(*more: Any) -> Scene:
    """An account with a credit of 100, a hold of 50 that expired, and a hold of 20 that is open."""
    return funded(100, place("hold_1", 50), place("other", 20), expire("hold_1"), *more)


@pytest.mark.money_bug(15)
@pytest.mark.parametrize(
    ("used", "available", "debt"),
    [
        # what the expired hold of 50 is settled with, and what is left
        (0, 80, 0),
        (50, 30, 0),
        (80, 0, 0),
        (81, -1, 1),
        (200, -120, 120),
    ],
)
def test_a_late_settlement_takes_the_free_balance_and_the_rest_is_debt(used: int, available: int, debt: int) -> None:
    scene = expired()

    kind, _ = scene.submit(settle("hold_1", used))

    event = scene.last()
    assert (kind, event.__struct_config__.tag) == ("accepted", "hold.settled_late")
    assert (used, debt) == (event.amount_microcents, event.debt_microcents)
    assert (available, 20, debt) == scene.money()
    assert scene.log.hold("other").held == 20


def test_in_debt_already_a_late_settlement_is_debt_in_full() -> None:
    scene = expired(place("in_debt", 1), settle("in_debt", 90))

    scene.submit(settle("hold_1", 7))

    assert scene.last().debt_microcents == 7
    assert scene.money() == (-17, 20, 17)


def test_it_says_what_the_hold_and_the_settlement_said() -> None:
    pinned = PriceRef(program="list", version=9, digest="ef" * 32)
    hold = place("hold_1", 40, price=pinned, model="m-9", request_id="req_9", key_id="key_1")
    scene = funded(100, create_key(), hold, expire("hold_1"))
    scene.now = NOON + timedelta(seconds=7)

    scene.submit(
        settle(
            "hold_1", 5, key_id="key_1", usage={"tokens": 5}, outcome="client_gone", backend="gpu-1", served={"n": 3}
        )
    )

    event = scene.last()
    assert (event.price, event.model, event.request_id, event.key_id) == (pinned, "m-9", "req_9", "key_1")
    assert (event.operation, event.placed_at, event.usage) == ("chat.completions", NOON, {"tokens": 5})
    assert (event.outcome, event.backend, event.served) == ("client_gone", "gpu-1", {"n": 3})


@pytest.mark.parametrize("key_id", [None, "key_1"])
@pytest.mark.parametrize("earlier", [1, 2, 3])
def test_a_hold_that_expires_in_the_group_of_its_settlement_is_settled_late(key_id: str | None, earlier: int) -> None:
    commands = [
        place("hold_1", 50, key_id=key_id),
        expire("hold_1"),
        settle("hold_1", 30, key_id=key_id),
        settle("hold_1", 30, key_id=key_id),
    ]
    scene = funded(100, create_key(), *commands[: earlier - 1])

    *_, first, again = scene.group(*commands[earlier - 1 :])

    assert (first[0], again) == ("accepted", ("replayed", first[1]))
    assert (scene.event(first[1]).placed_at, scene.money()) == (NOON, (70, 0, 0))


def test_a_hold_that_is_settled_before_it_expires_in_the_same_group_is_settled_and_does_not_expire() -> None:
    scene = funded(100, place("hold_1", 50))

    one, two = scene.group(settle("hold_1", 30), expire("hold_1"))

    assert (one[0], scene.last().__struct_config__.tag) == ("accepted", "hold.settled")
    assert type(two[1]).__name__ == "HoldAlreadyEnded"


@pytest.mark.parametrize(
    ("command", "ended_by"),
    [
        (settle("hold_1", 31), "HoldSettledLate"),
        (settle("hold_1", 30, usage={"tokens": 2}), "HoldSettledLate"),
        (void("hold_1"), "HoldSettledLate"),
        (extend("hold_1", 90), "HoldSettledLate"),
        (draw("hold_1", 1), "HoldSettledLate"),
    ],
)
def test_after_it_the_hold_takes_nothing_else_in_its_own_group_or_later(command: Any, ended_by: str) -> None:
    scene = expired()

    results = scene.group(settle("hold_1", 30), command)
    later = scene.refusal(command)

    assert "HoldAlreadyEnded" == type(results[1][1]).__name__ == type(later).__name__
    assert ended_by == later.ended_by


def test_expiring_the_hold_again_still_finds_that_it_expired() -> None:
    scene = funded(100, place("hold_1", 50))
    _, first = scene.submit(expire("hold_1"))
    scene.submit(settle("hold_1", 30))

    assert ("replayed", first) == scene.submit(expire("hold_1"))


def test_a_hold_that_was_voided_is_not_settled_late() -> None:
    scene = funded(100, place("hold_1", 50), void("hold_1"))

    assert scene.refusal(settle("hold_1", 30)).ended_by == "HoldVoided"


def test_another_account_does_not_settle_the_hold() -> None:
    scene = funded(100, open_account(B), grant(100, account=B), place("hold_1", 50))
    foreign = settle("hold_1", 30, account=B)

    in_the_same_group = scene.group(expire("hold_1"), foreign)[1][1]
    later = scene.refusal(foreign)

    assert [type(in_the_same_group).__name__, type(later).__name__] == ["HoldUnknown"] * 2


@pytest.mark.parametrize("key_id", [None, "key_2"])
def test_a_late_settlement_that_names_another_key_than_the_hold_is_refused(key_id: str | None) -> None:
    scene = funded(100, create_key(), create_key("key_2"), place("hold_1", 50, key_id="key_1"), expire("hold_1"))

    assert scene.refusal(settle("hold_1", 30, key_id=key_id)).ended_by == "HoldExpired"


def test_it_counts_against_the_budget_of_the_key_and_beyond_it_and_after_its_deletion() -> None:
    scene = funded(100, create_key(budget=50), place("hold_1", 50, key_id="key_1"), expire("hold_1"), delete_key())

    kind, _ = scene.submit(settle("hold_1", 60, key_id="key_1"))

    key = scene.log.books.keys["key_1"]
    assert (kind, key.month_spent, key.month_held) == ("accepted", 60, 0)


def test_it_counts_in_the_month_in_which_its_hold_was_placed_only() -> None:
    scene = funded(100, create_key(budget=50), place("hold_1", 50, key_id="key_1"), expire("hold_1"))
    scene.now = NOON + timedelta(days=31)
    scene.submit(place("hold_2", 10, key_id="key_1"))

    scene.submit(settle("hold_1", 30, key_id="key_1"))

    key = scene.log.books.keys["key_1"]
    assert (key.month, key.month_spent, key.month_held) == ("2026-12", 0, 10)
    assert scene.money() == (60, 10, 0)


def test_what_was_drawn_before_the_hold_expired_stays_charged_beside_it() -> None:
    scene = funded(100, place("hold_1", 50), draw("hold_1", 15), expire("hold_1"))

    scene.submit(settle("hold_1", 20))

    assert scene.money() == (65, 0, 0)


def test_it_is_corrected_as_any_charge() -> None:
    scene = expired(settle("hold_1", 30))

    scene.submit(rerate("hold_1", 25))
    scene.submit(rerate("hold_1", 40, ordinal=2))

    event = scene.last()
    assert (event.charge_seq, event.before_microcents, event.charged_microcents) == (6, 25, 15)
    assert scene.money() == (40, 20, 0)


@pytest.mark.parametrize("amount", [-1, MAX_AMOUNT + 1, 30.0])
def test_its_amount_is_a_whole_number_that_can_be_booked(amount: Any) -> None:
    assert type(expired().refusal(settle("hold_1", amount))).__name__ == "InvalidAmount"


def test_a_late_settlement_of_an_open_hold_is_noticed_by_whoever_folds_it() -> None:
    event = expired(settle("hold_1", 30)).last()
    scene = expired()

    with pytest.raises(LedgerCorrupt, match="is settled late, and is open"):
        evolve(scene.log.books.scope(A, None, "other"), replace(event, hold_id="other"), stream_id=A, at=NOON)
