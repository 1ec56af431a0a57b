"""Their lines against ours: what was planted is found, all of it, and nothing else is."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ledger.events import Paid
from payments.reconciliation.ledger_lines import provider_amount
from payments.reconciliation.lines import Line, Period
from payments.reconciliation.matching import match

DAY = Period(datetime(2026, 11, 20, tzinfo=UTC), datetime(2026, 11, 21, tzinfo=UTC))
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


def line(amount: int | str, id_: str = "1", *, at: datetime = NOON, **fields: Any) -> Line:
    said = {"kind": "payment", "reference": "pi_1", "currency": "USD", **fields}
    return Line(amount=Decimal(amount), at=at, id=id_, **said)


def found(theirs: list[Line], ours: list[Line], period: Period = DAY) -> list[str]:
    return [item.status for item in match("stripe", theirs, ours, period)]


def test_each_way_in_which_two_books_can_differ_has_its_word() -> None:
    assert found([line(10)], [line("10.00")]) == ["matched"]
    assert found([line(10)], []) == ["missing_here"]
    assert found([], [line(10)]) == ["missing_there"]
    assert found([line(10)], [line(9)]) == ["different_amount"]
    assert found([line(10)], [line(10, currency="EUR")]) == ["different_currency"]
    assert found([line(10)], [line(10, reference="pi_2")]) == ["missing_here", "missing_there"]
    assert found([line(10)], [line(10, kind="refund")]) == ["missing_here", "missing_there"]


def test_one_booking_of_ours_may_stand_for_several_of_their_movements() -> None:
    theirs = [line(-3, "re_1", kind="refund"), line(-4, "re_2", kind="refund"), line(-5, "re_3", kind="refund")]

    assert found(theirs, [line(-4, "0:8", kind="refund"), line(-8, "0:9", kind="refund")]) == ["matched", "matched"]
    assert found(theirs, [line(-11, "0:9", kind="refund")]) == ["different_amount"]


def test_what_cancels_out_needs_not_be_booked() -> None:
    assert found([line(-3, "re_1", kind="refund"), line(3, "re_2", kind="refund")], []) == ["matched"]
    assert found([], [line(10, "0:1"), line(-10, "0:2")]) == ["matched"]


MIDNIGHT, MOMENT = DAY.end, timedelta(seconds=1)
NEXT_DAY, DAY_BEFORE = Period(DAY.end, DAY.end + timedelta(days=1)), Period(DAY.start - timedelta(days=1), DAY.start)


def test_what_was_booked_just_across_midnight_is_no_break_of_either_day() -> None:
    theirs, ours = [line(10, at=MIDNIGHT - MOMENT)], [line(10, at=MIDNIGHT + MOMENT)]

    assert found(theirs, ours) == found(theirs, ours, NEXT_DAY) == ["matched"]
    assert found(theirs, ours, DAY_BEFORE) == []


def test_a_difference_across_midnight_is_the_same_break_on_both_days() -> None:
    theirs, ours = [line(10, at=MIDNIGHT - MOMENT)], [line(9, at=MIDNIGHT + MOMENT)]

    first, second = (match("stripe", theirs, ours, period) for period in (DAY, NEXT_DAY))

    assert [item.status for item in first] == ["different_amount"]
    assert first == second


def test_what_is_missing_is_a_break_of_its_own_day_only() -> None:
    missing = [line(10, at=MIDNIGHT)]

    assert found(missing, []) == found([], missing) == []
    assert found(missing, [], NEXT_DAY) == ["missing_here"]
    assert found([], missing, NEXT_DAY) == ["missing_there"]


def test_another_refund_of_the_same_payment_on_another_day_is_another_matter() -> None:
    earlier = line(-7, "0:1", kind="refund", at=NOON - timedelta(days=1))
    later = line(-8, "re_3", kind="refund", at=NOON + timedelta(days=1))
    today = line(-5, "re_2", kind="refund")

    assert found([today, later], [earlier]) == ["missing_here"]
    assert found([], [earlier, replace(today, id="0:9")]) == ["missing_there"]


def test_the_same_difference_has_the_same_id_in_every_run_and_another_amount_another() -> None:
    (one,) = match("stripe", [line(10)], [line(9)], DAY)
    (in_a_month,) = match("stripe", [line("10.0")], [line("9.00")], Period(NOON - timedelta(days=9), DAY.end))
    others = [
        match("stripe", [line(10)], [line(8)], DAY),
        match("stripe", [line(11)], [line(9)], DAY),
        match("alipay", [line(10)], [line(9)], DAY),
        match("stripe", [line(10, "2")], [line(9)], DAY),
        match("stripe", [line(10, kind="refund")], [line(9, kind="refund")], DAY),
        match("stripe", [line(10)], [], DAY),
    ]

    ids = {one.break_id, *(item.break_id for items in others for item in items)}
    assert one.break_id == in_a_month.break_id
    assert len(ids) == 1 + len(others)


# --- the law


class Payment(msgspec.Struct, frozen=True):
    """One payment, its fee and its refunds, as both sides have them while nothing is planted."""

    number: int
    cents: int
    refunds: list[int]
    minute: int  # of three days, of which the second is the period
    delay_s: int  # until we book

    def lines(self) -> list[tuple[Line, Line]]:
        at = DAY.start - timedelta(days=1) + timedelta(minutes=self.minute)
        moved = [("payment", self.cents), *(("refund", -cents) for cents in self.refunds)]
        return [self._twins(nth, kind, cents, at + timedelta(hours=nth)) for nth, (kind, cents) in enumerate(moved)]

    def _twins(self, nth: int, kind: Any, cents: int, at: datetime) -> tuple[Line, Line]:
        name = f"{self.number}.{nth}"
        theirs = line(
            Decimal(cents).scaleb(-2).__str__(), f"txn_{name}", kind=kind, reference=f"pi_{self.number}", at=at
        )
        return theirs, replace(theirs, id=f"0:{name}", at=at + timedelta(seconds=self.delay_s))


payments = st.lists(
    st.builds(
        Payment,
        number=st.integers(0, 10**6),
        cents=st.integers(1, 10**6),
        refunds=st.lists(st.integers(1, 999), max_size=3, unique=True),
        minute=st.integers(0, 3 * 24 * 60 - 1),
        delay_s=st.sampled_from((0, 1, 60, 3600, 24 * 3600)),
    ),
    max_size=8,
    unique_by=lambda payment: payment.number,
)

#: What can be planted on a pair of lines: what is left of it, and what must be found.
PLANTS: dict[str, Callable[[Line, Line], tuple[list[Line], list[Line]]]] = {
    "missing_here": lambda theirs, ours: ([theirs], []),
    "missing_there": lambda theirs, ours: ([], [ours]),
    "different_amount": lambda theirs, ours: ([replace(theirs, amount=theirs.amount + Decimal("1000000.01"))], [ours]),
    "different_currency": lambda theirs, ours: ([theirs], [replace(ours, currency="EUR")]),
}


@given(payments, st.data())
def test_any_set_of_planted_breaks_over_any_set_of_payments_gives_exactly_these(
    some: list[Payment], data: st.DataObject
) -> None:
    theirs, ours, planted, untouched = [], [], [], 0
    for payment in some:
        pairs = payment.lines()
        broken = data.draw(st.none() | st.sampled_from(range(len(pairs))))
        for nth, (their, our) in enumerate(pairs):
            if nth != broken:
                theirs.append(their)
                ours.append(our)
                untouched += DAY.has(their.at) or DAY.has(our.at)
                continue
            kind = data.draw(st.sampled_from(sorted(PLANTS)))
            left_there, left_here = PLANTS[kind](their, our)
            theirs += left_there
            ours += left_here
            if any(DAY.has(each.at) for each in (*left_there, *left_here)):
                planted.append((kind, their.kind, their.reference))

    items = match("stripe", data.draw(st.permutations(theirs)), data.draw(st.permutations(ours)), DAY)

    breaks = [(item.status, item.kind, item.reference) for item in items if item.break_id is not None]
    assert sorted(planted) == sorted(breaks)
    assert len([item for item in items if item.status == "matched"]) == untouched
    assert len({item.break_id for item in items if item.break_id}) == len(breaks)


@given(st.integers(1, 10**9), st.integers(1, 10**6), st.integers(1, 10**8), st.integers(1, 10**8), st.integers(0, 8))
def test_what_was_taken_back_for_a_whole_number_of_units_is_that_number_again(
    units: int, per_unit: int, numerator: int, back: int, decimals: int
) -> None:
    """As ``alipay.amounts.taken_back`` rounds, for any rate of at least a microcent for a unit."""
    asked = Paid("CNY", Decimal(units).scaleb(-decimals)).amount
    credited = units * per_unit + numerator % units
    refunded = back % (units + 1)

    taken = credited * refunded // units

    assert provider_amount(taken, of=credited, asked=asked) == Decimal(refunded).scaleb(-decimals)
