import pytest
from hypothesis import given
from hypothesis import strategies as st

from accounts import throttle
from accounts.throttle import Throttle


class Stopwatch:
    def __init__(self) -> None:
        self.elapsed = 0.0

    def __call__(self) -> float:
        return self.elapsed


@pytest.fixture
def stopwatch() -> Stopwatch:
    return Stopwatch()


@pytest.fixture
def three_then_one_every_ten(stopwatch: Stopwatch) -> Throttle:
    return Throttle(burst=3, interval_s=10, monotonic=stopwatch)


def test_a_burst_passes_and_the_next_waits_its_interval(three_then_one_every_ten: Throttle) -> None:
    waits = [three_then_one_every_ten.take("a") for _ in range(5)]

    assert waits == [0, 0, 0, 10, 10]


def test_after_the_wait_exactly_one_passes(three_then_one_every_ten: Throttle, stopwatch: Stopwatch) -> None:
    for _ in range(4):
        three_then_one_every_ten.take("a")

    stopwatch.elapsed += 10

    assert [three_then_one_every_ten.take("a") for _ in range(2)] == [0, 10]


def test_one_does_not_wait_for_another(three_then_one_every_ten: Throttle) -> None:
    for _ in range(4):
        three_then_one_every_ten.take("a")

    assert three_then_one_every_ten.take("b") == 0


def test_who_is_forgiven_begins_anew(three_then_one_every_ten: Throttle) -> None:
    for _ in range(3):
        three_then_one_every_ten.take("a")

    three_then_one_every_ten.forgive("a")

    assert [three_then_one_every_ten.take("a") for _ in range(4)] == [0, 0, 0, 10]


def test_the_one_who_has_not_tried_for_longest_is_forgotten(
    three_then_one_every_ten: Throttle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "MAX_REMEMBERED", 2)
    for who in ("a", "a", "a", "b", "b", "b", "b", "c"):
        three_then_one_every_ten.take(who)

    assert three_then_one_every_ten.take("b") == 10
    assert three_then_one_every_ten.take("a") == 0


@given(st.lists(st.floats(0, 20, width=16), max_size=60), st.integers(1, 5))
def test_never_more_pass_than_the_burst_and_one_for_each_interval(pauses: list[float], burst: int) -> None:
    stopwatch = Stopwatch()
    limited = Throttle(burst=burst, interval_s=4, monotonic=stopwatch)
    passed = 0
    for pause in pauses:
        stopwatch.elapsed += pause
        passed += limited.take("a") == 0

        assert passed <= burst + stopwatch.elapsed / 4
