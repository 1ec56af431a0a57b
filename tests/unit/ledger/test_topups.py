"""A payment is credited once, for what was asked, and what is taken back of it is never more than it was."""

from decimal import Decimal
from typing import Any

import pytest
from msgspec.structs import replace

from ledger import Paid
from ledger.errors import LedgerCorrupt
from ledger.events import TopupRequested
from ledger.evolve import evolve
from ledger.money import MAX_AMOUNT
from tests.unit.ledger.scenes import (
    NOON,
    TEN_DOLLARS,
    A,
    B,
    Scene,
    create_key,
    credit,
    expire_topup,
    extend,
    fail_topup,
    funded,
    grant,
    mark_pending,
    open_account,
    place,
    reinstate,
    request_topup,
    reverse,
    settle,
)


def asked_for(*more: Any) -> Scene:
    """An account without money that asked for a top-up of 100, and what else is to happen first."""
    return Scene(open_account(), request_topup(), *more)


def status(scene: Scene, topup_id: str = "topup_1") -> str:
    return scene.log.books.topups[topup_id].status


def taken_back(scene: Scene) -> tuple[int, int, int]:
    topup = scene.log.books.topups["topup_1"]
    return topup.refunded, topup.disputed, topup.reorganised


@pytest.mark.parametrize(
    ("life", "expected"),
    [
        ([], "requested"),
        ([mark_pending()], "pending"),
        ([mark_pending(), mark_pending(reference="pi_1")], "pending"),
        ([fail_topup()], "failed"),
        ([mark_pending(), expire_topup()], "expired"),
    ],
)
def test_before_it_is_paid_nothing_is_credited(life: list[Any], expected: str) -> None:
    scene = asked_for(*life)

    assert (expected, (0, 0, 0)) == (status(scene), scene.money())


@pytest.mark.parametrize("life", [[], [mark_pending()], [fail_topup()], [mark_pending(), expire_topup()]])
def test_a_payment_is_credited_whatever_became_of_its_topup_meanwhile(life: list[Any]) -> None:
    scene = asked_for(*life)

    scene.submit(credit())

    event = scene.last()
    assert (status(scene), scene.money()) == ("credited", (100, 0, 0))
    assert (event.amount_microcents, event.payment_id, event.paid) == (100, "pi_1", TEN_DOLLARS)


def test_the_same_payment_told_of_five_times_is_credited_once() -> None:
    scene = asked_for(mark_pending())

    kinds = [kind for kind, _ in scene.group(credit(), credit())] + [scene.submit(credit())[0] for _ in range(3)]

    assert kinds == ["accepted", "replayed", "replayed", "replayed", "replayed"]
    assert scene.money() == (100, 0, 0)


@pytest.mark.parametrize(
    "command",
    [
        credit(paid=Paid("USD", Decimal("9.99"))),
        credit(paid=Paid("USD", Decimal("0.01"))),
        credit(paid=Paid("USD", Decimal("10.01"))),
        credit(paid=Paid("EUR", Decimal("10.00"))),
        credit(paid=Paid("usd", Decimal("10.00"))),
        credit(provider="alipay"),
        credit(payment_id="pi_of_another"),
    ],
)
@pytest.mark.parametrize("life", [[], [fail_topup()]])
def test_what_was_not_asked_for_is_not_credited(life: list[Any], command: Any) -> None:
    scene = asked_for(*life, request_topup("topup_2"), credit("topup_2", "pi_of_another"))

    refusal = scene.refusal(command)

    assert type(refusal).__name__ == "TopupMismatch"
    assert scene.money() == (100, 0, 0)


def test_a_number_is_the_same_amount_however_many_zeros_it_is_written_with() -> None:
    assert asked_for().submit(credit(paid=Paid("USD", Decimal("10"))))[0] == "accepted"


def test_who_reads_of_another_amount_reads_both() -> None:
    refusal = asked_for().refusal(credit(paid=Paid("CNY", Decimal("1E+2"))))

    assert "paid were 100 CNY" in str(refusal)


def test_one_payment_for_two_topups_is_credited_to_the_first_also_in_one_group() -> None:
    scene = asked_for(request_topup("topup_2"))
    scene.group(open_account(B), request_topup("topup_3", account=B))

    results = scene.group(credit("topup_1", "pi_1"), credit("topup_2", "pi_1"), credit("topup_3", "pi_1", account=B))

    assert results[0][0] == "accepted"
    assert [type(refusal).__name__ for _, refusal in results[1:]] == ["TopupMismatch"] * 2
    assert (scene.money()[0], scene.money(B)[0]) == (100, 0)


def test_a_second_payment_for_a_credited_topup_is_refused() -> None:
    refusal = asked_for(credit()).refusal(credit(payment_id="pi_2"))

    assert type(refusal).__name__ == "TopupMismatch"
    assert "pi_1" in str(refusal)
    assert "pi_2" in str(refusal)


@pytest.mark.parametrize("command", [mark_pending(), fail_topup(), expire_topup()])
@pytest.mark.parametrize(
    ("over", "as_what"),
    [
        ([credit()], "credited"),
        ([credit(), reverse(100)], "credited"),
        ([fail_topup(), credit()], "credited"),
        ([expire_topup(), credit()], "credited"),
        ([fail_topup()], "failed"),
        ([expire_topup()], "expired"),
    ],
)
def test_a_topup_that_is_over_stays_so(over: list[Any], as_what: str, command: Any) -> None:
    scene = asked_for(*over)
    if any(type(command) is type(each) for each in over):
        assert scene.submit(command)[0] == "replayed"
    else:
        refusal = scene.refusal(command)
        assert ("TopupOver", as_what) == (type(refusal).__name__, refusal.status)


@pytest.mark.parametrize("command", [request_topup(), mark_pending(), credit(), fail_topup(reason="another")])
def test_each_step_again_is_the_first_one_whatever_came_after(command: Any) -> None:
    scene = asked_for(mark_pending(), fail_topup(), credit(), reverse(40))
    at = [type(stored.event).__name__ for stored in scene.log.stream(A)]
    name = {"RequestTopup": "TopupRequested", "MarkTopupPending": "TopupPending", "CreditTopup": "TopupCredited"}

    kind, (_, seq) = scene.submit(command)

    assert kind == "replayed"
    assert at.index(name.get(type(command).__name__, "TopupFailed")) + 1 == seq


def test_what_is_paid_in_another_currency_is_requested_with_the_rate_and_who_said_so() -> None:
    asked = Paid("CNY", Decimal("71.43"))
    command = replace(request_topup(asked=asked), exchange_rate=Decimal("0.14"), rate_source="price book")
    scene = Scene(open_account())

    scene.submit(command)

    (event,) = [stored.event for stored in scene.log.stream(A) if isinstance(stored.event, TopupRequested)]
    assert (event.asked, event.exchange_rate, event.rate_source) == (asked, Decimal("0.14"), "price book")


def test_a_pending_topup_takes_the_last_reference_that_it_was_given() -> None:
    scene = asked_for(mark_pending(reference="cs_1"), mark_pending(reference="pi_1"))

    scene.submit(mark_pending(reference="cs_1"))  # that came late

    assert scene.log.books.topups["topup_1"].reference == "pi_1"


def test_reports_of_what_was_refunded_so_far_take_the_difference_in_any_order() -> None:
    scene = asked_for(credit())

    results = [scene.submit(reverse(total, reason=f"re_{total}")) for total in (30, 20, 70, 30, 70, 100)]

    assert [kind for kind, _ in results] == ["accepted", "replayed", "accepted", "replayed", "replayed", "accepted"]
    assert [e.event.amount_microcents for e in scene.log.events_of_topup("topup_1")[2:]] == [30, 40, 30]
    assert (taken_back(scene), scene.money()) == ((100, 0, 0), (0, 0, 0))


def test_a_dispute_that_is_won_gives_back_what_was_taken_and_one_that_is_lost_nothing() -> None:
    scene = asked_for(credit(), reverse(25), reverse(75, "dispute", "dp_1"))
    disputed = scene.money()

    won = scene.submit(reinstate(0, reason="dp_1 won"))[0]
    again = scene.submit(reinstate(0, reason="dp_1 won"))[0]

    assert (disputed, won, again) == ((0, 0, 0), "accepted", "replayed")
    assert (taken_back(scene), scene.money()) == ((25, 0, 0), (75, 0, 0))


def test_an_old_report_of_a_dispute_takes_nothing_after_it_was_won() -> None:
    scene = asked_for(credit(), reverse(100, "dispute", "dp_1"), reinstate(0, reason="dp_1 won"))

    kind, _ = scene.submit(reverse(100, "dispute", "dp_1"))

    assert (kind, scene.money()) == ("replayed", (100, 0, 0))


def test_another_dispute_takes_the_same_again_and_the_old_victory_gives_nothing_back() -> None:
    scene = asked_for(credit(), reverse(100, "dispute", "dp_1"), reinstate(0, reason="dp_1 won"))

    kinds = [scene.submit(reverse(100, "dispute", "dp_2"))[0], scene.submit(reinstate(0, reason="dp_1 won"))[0]]

    assert (kinds, scene.money()) == (["accepted", "replayed"], (0, 0, 0))


def test_what_was_spent_before_it_was_taken_back_is_debt_and_no_hold_is_touched() -> None:
    scene = asked_for(credit(), place("hold_1", 60), settle("hold_1", 60), place("hold_2", 30))

    scene.submit(reverse(100, "dispute", "dp_1"))

    assert scene.money() == (-90, 30, 90)
    assert type(scene.refusal(place("hold_3", 1))).__name__ == "InsufficientFunds"
    assert type(scene.refusal(extend("hold_2", 31))).__name__ == "InsufficientFunds"
    assert scene.submit(settle("hold_2", 30))[0] == "accepted"
    assert scene.submit(grant(90))[0] == "accepted"
    assert scene.money() == (0, 0, 0)


@pytest.mark.parametrize(
    "command",
    [
        reverse(101),
        reverse(61, "dispute", "dp_2"),
        reverse(61, "reorganisation"),
    ],
)
def test_more_than_was_credited_is_not_taken_back(command: Any) -> None:
    assert type(asked_for(credit(), reverse(40)).refusal(command)).__name__ == "TopupMismatch"


@pytest.mark.parametrize("amount", [-1, MAX_AMOUNT + 1, 41.5])
@pytest.mark.parametrize("command", [reverse(0), reinstate(0, "refund")])
def test_a_total_is_an_amount_that_can_be_booked(command: Any, amount: Any) -> None:
    refusal = asked_for(credit(), reverse(40)).refusal(replace(command, total_microcents=amount))

    assert type(refusal).__name__ == "InvalidAmount"


@pytest.mark.parametrize("life", [[], [mark_pending()], [fail_topup()], [expire_topup()]])
@pytest.mark.parametrize("command", [reverse(0), reverse(10), reinstate(0), reinstate(100)])
def test_what_was_not_credited_yet_is_not_taken_back_but_can_be_afterwards(life: list[Any], command: Any) -> None:
    scene = asked_for(*life)

    refusal = scene.refusal(command)
    scene.submit(credit())

    assert (type(refusal).__name__, refusal.topup_id) == ("TopupNotCredited", "topup_1")
    assert scene.submit(command)[0] in ("accepted", "replayed")


@pytest.mark.parametrize(
    "command",
    [
        mark_pending("nobody's"),
        credit("nobody's"),
        reverse(1, topup_id="nobody's"),
        reinstate(0, topup_id="nobody's"),
        fail_topup("nobody's"),
        expire_topup("nobody's"),
        mark_pending(account=B),
        credit(account=B),
        fail_topup(account=B),
        expire_topup(account=B),
    ],
)
def test_a_topup_that_is_not_the_accounts_is_unknown(command: Any) -> None:
    scene = asked_for(open_account(B))

    assert type(scene.refusal(command)).__name__ == "TopupUnknown"


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (request_topup("topup_2", 0), "InvalidAmount"),
        (request_topup("topup_2", -1), "InvalidAmount"),
        (request_topup("topup_2", MAX_AMOUNT + 1), "InvalidAmount"),
        *(
            (request_topup("topup_2", asked=Paid("USD", Decimal(asked))), "InvalidAmount")
            for asked in ("0", "-1", "NaN", "sNaN", "Infinity", "1E+19", "1E-19")
        ),
        (request_topup("topup_1", key="another"), "IdempotencyMismatch"),
        (request_topup("topup_2", key="topup_1"), "IdempotencyMismatch"),
        (request_topup("topup_1", 101), "IdempotencyMismatch"),
        (request_topup("topup_1", account=B), "IdempotencyMismatch"),
        (request_topup("topup_2", account="acct_nobody's"), "AccountUnknown"),
        (credit(account="acct_nobody's"), "AccountUnknown"),
        (request_topup("topup_2", account="prices"), "WrongStream"),
    ],
)
def test_a_request_says_something_new_that_can_be_paid(command: Any, why: str) -> None:
    assert type(asked_for(open_account(B)).refusal(command)).__name__ == why


def test_a_topup_touches_neither_the_keys_nor_the_holds_of_its_account() -> None:
    scene = funded(50, create_key(budget=50), place("hold_1", 50, key_id="key_1"), request_topup(), credit())

    assert scene.money() == (100, 50, 0)
    assert scene.log.books.keys["key_1"].month_held == 50


@pytest.mark.parametrize(
    ("life", "changes", "rule"),
    [
        ([credit()], {}, "is credited twice"),
        ([], {"topup_id": "topup_2"}, "was not requested"),
        ([], {"amount_microcents": 99}, "otherwise than it was requested"),
        ([], {"paid": Paid("USD", Decimal(9))}, "otherwise than it was requested"),
        ([], {"provider": "alipay"}, "otherwise than it was requested"),
    ],
)
def test_a_credit_that_cannot_follow_is_noticed_by_whoever_folds_it(life: list[Any], changes: Any, rule: str) -> None:
    event = replace(asked_for(credit()).last(), **changes)
    books = asked_for(*life).log.books

    with pytest.raises(LedgerCorrupt, match=rule):
        evolve(books.scope_of(A, event), event, stream_id=A, at=NOON)


@pytest.mark.parametrize(
    ("life", "changes", "rule"),
    [
        ([], {}, "more is taken back than was credited"),
        ([credit()], {"total_microcents": 41}, "does not continue"),
        ([credit()], {"amount_microcents": 101, "total_microcents": 101}, "more is taken back than was credited"),
        ([credit(), reverse(61, "dispute")], {}, "more is taken back than was credited"),
        ([credit()], {"amount_microcents": -1, "total_microcents": -1}, "or less than nothing"),
    ],
)
def test_a_reversal_that_cannot_follow_is_noticed_by_whoever_folds_it(life: list[Any], changes: Any, rule: str) -> None:
    event = replace(asked_for(credit(), reverse(40)).last(), **changes)
    books = asked_for(*life).log.books

    with pytest.raises(LedgerCorrupt, match=rule):
        evolve(books.scope_of(A, event), event, stream_id=A, at=NOON)


@pytest.mark.parametrize("step", [mark_pending(), fail_topup(), expire_topup(), request_topup()])
def test_a_step_that_cannot_follow_is_noticed_by_whoever_folds_it(step: Any) -> None:
    event = Scene(open_account(), *([] if step == request_topup() else [request_topup()]), step).last()
    books = asked_for(credit()).log.books

    with pytest.raises(LedgerCorrupt, match=r"goes on after|requested twice"):
        evolve(books.scope_of(A, event), event, stream_id=A, at=NOON)
