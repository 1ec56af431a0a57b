"""What has happened to a request so far, as its receipt will say it."""

import pytest

from inference_proxy.progress import Progress


class Monotonic:
    """Seconds as a test wants them."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Monotonic:
    return Monotonic()


def test_of_a_request_that_came_to_nothing_only_its_time_is_told(time: Monotonic) -> None:
    progress = Progress(time)

    time.now += 0.25

    assert progress.served == {"took_ms": 250}


def test_each_attempt_is_told_with_its_backend_its_outcome_and_its_time(time: Monotonic) -> None:
    progress = Progress(time)

    time.now += 0.5
    progress.tried("first", "refused", since=100.25, status=503)
    time.now += 0.5
    progress.tried("second", "unreachable", since=100.5)

    assert list(progress.served["attempts"]) == [
        {"backend": "first", "outcome": "refused", "took_ms": 250, "status": 503},
        {"backend": "second", "outcome": "unreachable", "took_ms": 500},
    ]


def test_the_first_byte_is_the_first(time: Monotonic) -> None:
    progress = Progress(time)

    for _ in range(3):
        time.now += 0.125
        progress.answering()

    assert progress.served["first_byte_ms"] == 125


def test_what_was_delivered_was_generated_and_perhaps_more(time: Monotonic) -> None:
    progress = Progress(time)

    progress.generated(5)
    progress.delivered(3)
    ahead = progress.served
    progress.delivered(8)
    progress.generated(None)

    assert (ahead["delivered_tokens"], ahead["generated_tokens"]) == (3, 5)
    assert (progress.served["delivered_tokens"], progress.served["generated_tokens"]) == (8, 8)
