"""A key's monthly budget and rate limit: exact, judged where money is judged, and never reset by a job."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.unit.ledger.scenes import (
    NOON,
    Scene,
    create_key,
    draw,
    expire,
    extend,
    grant,
    open_account,
    place,
    settle,
    void,
)

SECOND = timedelta(seconds=1)


def with_key(*, budget: int | None = None, rpm: int | None = None, at: datetime = NOON) -> Scene:
    """An account with plenty of credit and one key, at this moment."""
    scene = Scene()
    scene.now = at
    for kind, detail in scene.group(open_account(), grant(1_000_000), create_key(budget=budget, rpm=rpm)):
        assert kind == "accepted", detail
    return scene


def sums(scene: Scene) -> tuple[str, int, int]:
    """(month, spent, held) of the key."""
    key = scene.log.books.keys["key_1"]
    return key.month, key.month_spent, key.month_held


def test_a_budget_takes_holds_up_to_its_last_microcent_and_no_further() -> None:
    scene = with_key(budget=100)
    scene.submit(place("hold_1", 60, key_id="key_1"))

    refusal = scene.refusal(place("hold_2", 41, key_id="key_1"))
    kind, _ = scene.submit(place("hold_2", 40, key_id="key_1"))

    assert (refusal.needed, refusal.limit, refusal.spent, refusal.held) == (41, 100, 0, 60)
    assert kind == "accepted"


@pytest.mark.parametrize(
    ("end", "spent"),
    [(settle("hold_1", 25), 25), (settle("hold_1", 130), 130), (void("hold_1"), 0), (expire("hold_1"), 0)],
)
def test_the_end_of_a_hold_frees_its_budget_except_for_what_was_charged(end: object, spent: int) -> None:
    scene = with_key(budget=100)
    scene.submit(place("hold_1", 60, key_id="key_1"))

    scene.submit(end)

    assert ("2026-11", spent, 0) == sums(scene)


@pytest.mark.money_bug(18)
def test_a_charge_counts_against_the_key_of_its_hold_whatever_key_its_settlement_names() -> None:
    scene = with_key(budget=50)
    for command in (create_key("key_2", budget=50), place("hold_1", 50, key_id="key_1")):
        scene.submit(command)

    scene.submit(settle("hold_1", 30, key_id="key_2"))

    assert (sums(scene), scene.log.books.keys["key_2"].month_spent) == (("2026-11", 30, 0), 0)


def test_draws_and_extensions_count_against_the_budget_as_they_happen() -> None:
    scene = with_key(budget=100)
    scene.submit(place("hold_1", 60, key_id="key_1"))
    scene.submit(draw("hold_1", 20))
    assert sums(scene) == ("2026-11", 20, 40)

    refusal = scene.refusal(extend("hold_1", 101))
    scene.submit(extend("hold_1", 100))

    assert (refusal.needed, refusal.spent, refusal.held) == (41, 20, 40)
    assert sums(scene) == ("2026-11", 20, 80)


def test_requests_without_the_key_do_not_count_against_its_budget() -> None:
    scene = with_key(budget=100)

    scene.submit(place("hold_1", 5_000))

    assert sums(scene) == ("2026-11", 0, 0)


@pytest.mark.money_bug(40)
def test_a_hold_of_nothing_passes_a_used_up_budget_and_a_budget_of_zero() -> None:
    scene = with_key(budget=0)

    kind, _ = scene.submit(place("free", 0, key_id="key_1"))
    refusal = scene.refusal(place("hold_1", 1, key_id="key_1"))

    assert (kind, type(refusal).__name__) == ("accepted", "BudgetExceeded")


@pytest.mark.money_bug(44)
@pytest.mark.parametrize(
    ("moment", "resets_at"),
    [
        ("2026-11-21T12:00:00", "2026-12-01"),
        ("2026-12-31T23:59:59", "2027-01-01"),
        ("2028-02-29T23:59:59", "2028-03-01"),
        ("2027-02-28T23:59:59", "2027-03-01"),
    ],
)
def test_the_next_month_is_a_new_budget_from_its_first_second(moment: str, resets_at: str) -> None:
    scene = with_key(budget=100, at=datetime.fromisoformat(moment).replace(tzinfo=UTC))
    scene.submit(place("hold_1", 100, key_id="key_1"))

    refusal = scene.refusal(place("hold_2", 1, key_id="key_1"))
    scene.now = refusal.resets_at
    kind, _ = scene.submit(place("hold_2", 100, key_id="key_1"))

    assert datetime.fromisoformat(resets_at).replace(tzinfo=UTC) == refusal.resets_at
    assert kind == "accepted"
    assert (resets_at[:7], 0, 100) == sums(scene)


@pytest.mark.money_bug(44)
def test_leap_day_is_a_day_of_february() -> None:
    scene = with_key(budget=100, at=datetime(2028, 2, 28, 23, 59, 59, tzinfo=UTC))
    scene.submit(place("hold_1", 100, key_id="key_1"))
    scene.now += SECOND

    refusal = scene.refusal(place("hold_2", 1, key_id="key_1"))

    assert datetime(2028, 3, 1, tzinfo=UTC) == refusal.resets_at


@pytest.mark.money_bug(44)
def test_a_hold_placed_in_the_last_second_of_a_month_settles_in_that_month() -> None:
    scene = with_key(budget=100, at=datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC))
    scene.submit(place("hold_1", 60, key_id="key_1"))
    scene.now += 2 * SECOND

    scene.submit(settle("hold_1", 50))

    assert sums(scene) == ("2026-11", 50, 0)


def test_a_hold_of_last_month_leaves_this_months_budget_alone() -> None:
    scene = with_key(budget=100, at=datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC))
    scene.submit(place("hold_1", 60, key_id="key_1"))
    scene.now += SECOND

    kind, _ = scene.submit(place("hold_2", 100, key_id="key_1"))
    scene.submit(settle("hold_1", 55))

    assert kind == "accepted"
    assert sums(scene) == ("2026-12", 0, 100)


def test_an_extension_after_the_month_has_moved_on_is_not_judged_by_the_budget() -> None:
    """A key remembers the sums of one month. What it forgot limits nothing: known, and written down."""
    scene = with_key(budget=100, at=datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC))
    scene.submit(place("hold_1", 60, key_id="key_1"))
    scene.now += SECOND
    scene.submit(place("hold_2", 1, key_id="key_1"))

    kind, _ = scene.submit(extend("hold_1", 500))

    assert kind == "accepted"
    assert sums(scene) == ("2026-12", 0, 1)


@pytest.mark.money_bug(44)
def test_a_clock_stepped_back_over_the_months_end_does_not_open_the_old_budget_again() -> None:
    scene = with_key(budget=100, at=datetime(2026, 12, 1, tzinfo=UTC))
    scene.submit(place("hold_1", 100, key_id="key_1"))
    scene.now -= SECOND

    refusal = scene.refusal(place("hold_2", 1, key_id="key_1"))

    assert datetime(2027, 1, 1, tzinfo=UTC) == refusal.resets_at
    assert sums(scene) == ("2026-12", 0, 100)


def test_events_stay_in_order_of_time_when_the_clock_is_stepped_back() -> None:
    scene = with_key()
    scene.now -= timedelta(hours=1)

    scene.submit(place("hold_1", 1))

    assert [stored.at for stored in scene.log.events] == [NOON] * 4


def test_a_rate_limit_lets_exactly_its_burst_through_and_says_when_the_next_one_fits() -> None:
    scene = with_key(rpm=3)
    for n in range(3):
        assert scene.submit(place(f"hold_{n}", 1, key_id="key_1"))[0] == "accepted"

    refusal = scene.refusal(place("late", 1, key_id="key_1"))
    scene.now += timedelta(seconds=20)
    kind, _ = scene.submit(place("late", 1, key_id="key_1"))

    assert (refusal.limit_rpm, refusal.retry_after_s, refusal.reset_after_s) == (3, 20, 60)
    assert kind == "accepted"


def test_a_refused_request_uses_up_nothing_of_the_rate_limit() -> None:
    scene = with_key(rpm=1, budget=10)
    scene.refusal(place("too_dear", 11, key_id="key_1"))
    scene.refusal(place("beyond_the_balance", 2_000_000, key_id="key_1"))

    kind, _ = scene.submit(place("hold_1", 10, key_id="key_1"))

    assert kind == "accepted"


def test_a_hold_of_nothing_counts_against_the_rate_limit() -> None:
    scene = with_key(rpm=1)
    scene.submit(place("free", 0, key_id="key_1"))

    assert type(scene.refusal(place("free_again", 0, key_id="key_1"))).__name__ == "RateLimited"


def test_after_the_clock_was_stepped_back_by_an_hour_the_key_is_served_at_once_and_limited_as_ever() -> None:
    scene = with_key(rpm=2)
    for n in range(2):
        scene.submit(place(f"hold_{n}", 1, key_id="key_1"))
    scene.now -= timedelta(hours=1)

    first, _ = scene.submit(place("after_1", 1, key_id="key_1"))
    refusal = scene.refusal(place("after_2", 1, key_id="key_1"))
    scene.now += timedelta(seconds=30)
    second, _ = scene.submit(place("after_2", 1, key_id="key_1"))

    assert (first, refusal.retry_after_s, second) == ("accepted", 30, "accepted")


def test_each_key_has_limits_of_its_own() -> None:
    scene = with_key(rpm=1, budget=10)
    scene.submit(create_key("key_2", rpm=1, budget=10))
    scene.submit(place("hold_1", 10, key_id="key_1"))

    kind, _ = scene.submit(place("hold_2", 10, key_id="key_2"))

    assert kind == "accepted"
