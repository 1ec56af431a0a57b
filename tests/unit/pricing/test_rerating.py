"""What a re-rating says it would do, before, while and after it is done."""

import pytest
from msgspec.structs import replace

from ledger.charges import StoredCharge
from pricing import PriceBook
from pricing.rerating import NOT_COVERED, Effect, Rerating
from tests.unit.pricing.charges import charge, corrected, priced_by

WRONG, RIGHT, OTHER = (priced_by("pages", price=price, version=n) for n, price in ((1, "3"), (2, "2"), (3, "9")))
UNIT = 100_000_000  # microcents


def wrongly_charged(pages: int, **fields: object) -> StoredCharge:
    return charge(3 * UNIT * pages, {"pages": pages}, price=WRONG.ref, **fields)  # type: ignore[arg-type]


def rerating(charges: list[StoredCharge]) -> Rerating:
    planned = Rerating(WRONG.ref, RIGHT, PriceBook())
    planned.add(charges)
    return planned


def test_the_effect_is_told_for_each_account() -> None:
    charges = [
        wrongly_charged(1, account_id="acct_a"),
        wrongly_charged(2, account_id="acct_a", reference="task_1"),
        wrongly_charged(5, account_id="acct_b"),
        charge(9 * UNIT, {"pages": 1}, account_id="acct_b", price=OTHER.ref),
    ]

    planned = rerating(charges)

    assert planned.effects == {
        "acct_a": Effect("USD", charges=2, to_correct=2, before=9 * UNIT, after=6 * UNIT),
        "acct_b": Effect("USD", charges=1, to_correct=1, before=15 * UNIT, after=10 * UNIT),
    }
    assert planned.left.by_reason == {}


def test_the_command_names_the_charge_and_the_number_of_its_correction() -> None:
    stored = corrected(wrongly_charged(1, reference="task_1"), 9 * UNIT, OTHER.ref)
    stored = corrected(stored, 3 * UNIT, WRONG.ref)

    (correction,) = rerating([]).to_correct([stored])
    command = correction.command(RIGHT.ref, reason="r", rerated_by="anna")

    assert (command.hold_id, command.reference, command.ordinal) == ("hold_1", "task_1", 3)
    assert (command.amount_microcents, command.price) == (2 * UNIT, RIGHT.ref)


def test_what_is_corrected_already_stays_in_the_plan_and_is_not_corrected_again() -> None:
    before = [wrongly_charged(1, hold_id="hold_1"), wrongly_charged(2, hold_id="hold_2")]
    half = [corrected(before[0], 2 * UNIT, RIGHT.ref), before[1]]
    after = [half[0], corrected(before[1], 4 * UNIT, RIGHT.ref)]

    plans = [rerating(charges) for charges in (before, half, after)]

    assert len({plan.digest for plan in plans}) == 1
    assert [plan.effects["acct_a"].to_correct for plan in plans] == [2, 1, 0]
    assert [plan.effects["acct_a"].corrected for plan in plans] == [0, 1, 2]
    assert {(plan.effects["acct_a"].before, plan.effects["acct_a"].after) for plan in plans} == {(9 * UNIT, 6 * UNIT)}
    assert [len(list(rerating([]).to_correct(charges))) for charges in (before, half, after)] == [2, 1, 0]


@pytest.mark.parametrize(
    "other",
    [
        [wrongly_charged(1, hold_id="hold_2")],
        [wrongly_charged(2)],
        [wrongly_charged(1, account_id="acct_b")],
        [wrongly_charged(1, reference="task_1")],
        [replace(corrected(wrongly_charged(1), 3 * UNIT, WRONG.ref))],
        [],
    ],
)
def test_another_plan_has_another_id(other: list[StoredCharge]) -> None:
    assert rerating([wrongly_charged(1)]).digest != rerating(other).digest


def test_a_charge_that_is_right_by_chance_is_moved_to_the_right_program_as_well() -> None:
    stored = charge(2 * UNIT, {"pages": 1}, price=WRONG.ref)

    planned = rerating([stored])

    assert planned.effects == {"acct_a": Effect("USD", charges=1, to_correct=1, before=2 * UNIT, after=2 * UNIT)}
    assert [correction.difference for correction in planned.to_correct([stored])] == [0]


def test_what_the_right_program_cannot_price_is_told_and_left() -> None:
    stored = charge(3 * UNIT, {"tokens": 1}, price=WRONG.ref)

    planned = rerating([stored])

    assert [(account, left.charges, left.example) for (account, _), left in planned.left.by_reason.items()] == [
        ("acct_a", 1, "hold_1")
    ]
    assert list(planned.to_correct([stored])) == []


def test_what_the_free_balance_will_not_cover_is_told_in_the_order_of_the_log() -> None:
    too_low = [
        charge(UNIT, {"pages": 1}, price=WRONG.ref, available_microcents=2 * UNIT, hold_id=f"hold_{n}")
        for n in range(1, 4)
    ]
    too_high = charge(9 * UNIT, {"pages": 3}, price=WRONG.ref, available_microcents=2 * UNIT, hold_id="hold_4")

    planned = rerating([*too_low, too_high, replace(too_low[0], event=replace(too_low[0].event, hold_id="hold_5"))])

    assert {key: (left.charges, left.example) for key, left in planned.left.by_reason.items()} == {
        ("acct_a", NOT_COVERED): (1, "hold_3")
    }
    assert planned.effects["acct_a"].to_correct == 5
