"""The judge is judged: for each rule a request that keeps it, and one that breaks it in nothing else."""

from typing import Any

import msgspec
import pytest

from tests.acceptance.prices import MICROCENT, price_in_cents
from tests.faults.buying import Purchase
from tests.faults.clients import Ask, Seen
from tests.faults.evidence import Attempt, BookedHold, BookedTopup, Books, Case
from tests.faults.furnishing import MICROCENTS_PER_CENT, Payer
from tests.faults.verdict import (
    OUTLIVES_S,
    PERMITTED,
    WINDOW_S,
    Ending,
    judge_answers,
    judge_forwarding,
    judge_keys,
    judge_lives,
    judge_request,
    judge_topups,
)

MODEL = "qwen3-32b"
PROMPT, MADE = 14, 40
BEGAN, ENDED = 1000.0, 1010.0


def asked(**changes: Any) -> Ask:
    ask = Ask(
        number=1,
        payer=Payer("rich", "acct_1", "key_1", "secret"),
        model=MODEL,
        stream=True,
        include_usage=False,
        choices=1,
        max_tokens=None,
        simulate={},
        manner="stays",
        after=0,
        text="",
    )
    return msgspec.structs.replace(ask, **changes)


def seen(**changes: Any) -> Seen:
    return msgspec.structs.replace(Seen(ask=asked(), started_at=BEGAN, ended_at=ENDED, status=200), **changes)


def tokens(count: int, *, at: float = BEGAN) -> list[float]:
    return [at] * count


def charged(tokens: int, *, prompt: int = PROMPT, **changes: Any) -> BookedHold:
    price = price_in_cents(MODEL, input_tokens=prompt, output_tokens=tokens)
    hold = BookedHold(
        hold_id="hold_1",
        account_id="acct_1",
        model=MODEL,
        request_id="req_1",
        placed_at=BEGAN,
        ends=["hold.settled"],
        ended_at=ENDED,
        charges=1,
        charged_microcents=int(price / MICROCENT),
        usage={"input_tokens": prompt, "output_tokens": tokens},
    )
    return msgspec.structs.replace(hold, **changes)


def free(**changes: Any) -> BookedHold:
    return charged(0, **{"charges": 0, "charged_microcents": 0, "usage": {}, "ends": ["hold.voided"], **changes})


def attempt(**changes: Any) -> Attempt:
    made = Attempt(
        request_id="req_1",
        status=200,
        outcome="finished",
        stream=True,
        prompt_tokens=PROMPT,
        cached_tokens=0,
        completion_tokens=MADE,
        tokens_written=MADE,
        started_at=BEGAN,
        ended_at=ENDED,
    )
    return msgspec.structs.replace(made, **changes)


def broken_rules(hold: BookedHold, *clients: Seen, **made: Any) -> set[str]:
    return {violation.rule for violation in judge_request(Case(hold, list(clients), [attempt(**made)]))}


WHOLE = seen(is_whole=True, arrivals=tokens(MADE))
CURTAILED = seen(is_whole=True, is_curtailed=True, arrivals=tokens(8))
REFUSED = seen(status=502, error="backend_error")
BROKEN = seen(error="backend_error", arrivals=tokens(8))
LEFT = seen(left=True, arrivals=tokens(8))
LOST = seen(trouble="reset", arrivals=tokens(8))
NOTHING_BROKEN = seen(error="backend_error")
LEFT_EARLY = seen(left=True, ended_at=BEGAN - WINDOW_S)
LOST_EARLY = seen(trouble="reset", ended_at=BEGAN - WINDOW_S)
LEFT_WITH_NOTHING = seen(left=True)
LOST_WITH_NOTHING = seen(trouble="reset")
KEPT_LOST = seen(trouble="reset", arrivals=tokens(8), ask=asked(idempotency_key="k"))
KEPT_LEFT = seen(left=True, arrivals=tokens(8), ask=asked(idempotency_key="k"))

TOO_LITTLE, TOO_MUCH = "what was received is charged", "nothing is charged that was not delivered"
NOT_ITS_USAGE = "a whole answer costs exactly its usage"


@pytest.mark.parametrize(
    ("client", "least", "most", "below", "above"),
    [
        (WHOLE, MADE, MADE, NOT_ITS_USAGE, NOT_ITS_USAGE),
        (CURTAILED, 8, 8, TOO_LITTLE, TOO_MUCH),
        (BROKEN, 8, 8, TOO_LITTLE, TOO_MUCH),
        (LEFT, 8, MADE, TOO_LITTLE, TOO_MUCH),
        (LOST, 8, MADE, TOO_LITTLE, TOO_MUCH),
        (LEFT_WITH_NOTHING, 1, MADE, None, TOO_MUCH),
        (LOST_WITH_NOTHING, 1, MADE, None, TOO_MUCH),
        (KEPT_LOST, 1, MADE, None, TOO_MUCH),
        (KEPT_LEFT, 1, MADE, None, TOO_MUCH),
    ],
)
def test_a_charge_is_within_what_its_ending_permits(
    client: Seen, least: int, most: int, below: str | None, above: str
) -> None:
    assert broken_rules(charged(least), client) == set()
    assert broken_rules(charged(most), client) == set()
    assert broken_rules(charged(most + 1), client) == {above}
    if below is not None:
        assert broken_rules(charged(least - 1), client) == {below}
        assert broken_rules(free(), client) == {below}


@pytest.mark.parametrize(
    "client", [REFUSED, NOTHING_BROKEN, LEFT_EARLY, LEFT_WITH_NOTHING, LOST_WITH_NOTHING, KEPT_LOST]
)
def test_an_answer_that_nobody_got_whole_may_be_free(client: Seen) -> None:
    assert broken_rules(free(), client) == set()


@pytest.mark.parametrize("client", [REFUSED, NOTHING_BROKEN, LEFT_EARLY, LOST_EARLY])
def test_an_answer_of_which_nothing_can_have_arrived_must_be_free(client: Seen) -> None:
    assert broken_rules(charged(1), client) == {TOO_MUCH}
    assert broken_rules(charged(0), client) == {"a prompt alone is not charged"}


def test_what_a_killed_worker_delivered_last_may_be_missing() -> None:
    last = seen(trouble="reset", arrivals=[*tokens(8), *tokens(2, at=ENDED)])

    assert broken_rules(charged(8), last) == set()
    assert broken_rules(charged(7), last) == {TOO_LITTLE}


def test_a_try_with_a_key_is_free_once_its_hold_was_swept() -> None:
    again = seen(ask=asked(idempotency_key="k"), error="ledger_unavailable", arrivals=tokens(8))
    swept = free(ends=["hold.expired"])

    assert broken_rules(swept, again) == set()
    assert broken_rules(swept, seen(error="ledger_unavailable", arrivals=tokens(8))) == {TOO_LITTLE}
    assert broken_rules(charged(8), again) == set()


def test_a_hold_of_nobody_must_be_free() -> None:
    assert broken_rules(free()) == set()
    assert broken_rules(charged(1)) == {TOO_MUCH}


def test_every_ending_has_a_row_in_the_table() -> None:
    assert {ending for ending, _ in PERMITTED} == set(Ending)


@pytest.mark.parametrize(
    ("hold", "rule"),
    [
        (charged(MADE, ends=[]), "each hold ends exactly once"),
        (charged(MADE, ends=["hold.settled", "hold.voided"]), "each hold ends exactly once"),
        (charged(MADE, charges=2), "each hold is charged once"),
        (charged(MADE, charged_microcents=1), "the charge is the price of its usage"),
        (
            charged(MADE, served={"delivered_tokens": 1, "generated_tokens": MADE}),
            "the receipt says what was delivered",
        ),
        (
            charged(MADE, served={"delivered_tokens": MADE, "generated_tokens": MADE + 1}),
            "the receipt says what was generated",
        ),
        (charged(MADE, retry_count=1), "the receipt says which try it was"),
    ],
)
def test_a_hold_that_is_not_as_it_must_be_is_found(hold: BookedHold, rule: str) -> None:
    assert broken_rules(hold, WHOLE) == {rule}


def test_a_prompt_is_charged_as_its_backend_counted_it() -> None:
    assert broken_rules(charged(8, prompt=PROMPT + 1), LEFT) == {"the prompt is charged as it was counted"}


def test_an_answer_that_names_another_cost_than_its_charge_is_found() -> None:
    client = msgspec.structs.replace(WHOLE, cost_cents=MICROCENT)

    assert broken_rules(charged(MADE), client) == {"the answer says what it cost"}


def test_a_hold_may_wait_for_postgres_and_not_for_anything_else() -> None:
    late = Case(charged(MADE, ended_at=ENDED + OUTLIVES_S + 1), [WHOLE], [attempt()])

    assert list(judge_lives([late], outages=[(ENDED, ENDED + 2)])) == []
    assert [violation.rule for violation in judge_lives([late], outages=[])] == ["a hold does not outlive its request"]


def test_whoever_is_served_or_forwarded_without_a_hold_is_found() -> None:
    hold = charged(MADE)
    books = Books(holds={hold.hold_id: hold})

    assert list(judge_answers(books, [msgspec.structs.replace(WHOLE, hold_id=hold.hold_id)])) == []
    assert [found.rule for found in judge_answers(books, [WHOLE])] == ["no answer is without a hold"]
    assert [found.rule for found in judge_answers(books, [seen(is_unreadable=True)])] == ["every answer can be read"]
    assert list(judge_forwarding(books, {"req_1": [attempt()]})) == []
    assert [found.rule for found in judge_forwarding(books, {"req_2": [attempt()]})] == [
        "nothing is forwarded without a hold"
    ]
    assert [found.rule for found in judge_forwarding(books, {"req_1": [attempt(started_at=BEGAN - 1)]})] == [
        "nothing is forwarded before its hold"
    ]


def test_a_second_charge_or_answer_for_one_idempotency_key_is_found() -> None:
    one = seen(ask=asked(idempotency_key="k"), is_whole=True, said="a")
    other = msgspec.structs.replace(one, said="b")
    first, second = charged(MADE), charged(MADE, hold_id="hold_2")

    assert list(judge_keys([Case(first, [one, one], [])])) == []
    assert [found.rule for found in judge_keys([Case(first, [one], []), Case(second, [one], [])])] == [
        "an Idempotency-Key is charged once"
    ]
    assert [found.rule for found in judge_keys([Case(first, [one, other], [])])] == [
        "an Idempotency-Key has one answer"
    ]


BOUGHT = Purchase(topup_id="topup_1", payment_id="pi_1", cents=500, taken_back_cents=200)
BOOKED = BookedTopup("topup_1", "pi_1", "credited", 500 * MICROCENTS_PER_CENT, 200 * MICROCENTS_PER_CENT)


@pytest.mark.parametrize(
    ("purchases", "booked", "rules"),
    [
        ([BOUGHT], [BOOKED], []),
        ([], [msgspec.structs.replace(BOOKED, status="pending", payment_id=None)], []),
        ([BOUGHT], [], ["what was paid is credited"]),
        ([BOUGHT], [msgspec.structs.replace(BOOKED, status="pending")], ["what was paid is credited"]),
        ([BOUGHT], [msgspec.structs.replace(BOOKED, payment_id="pi_2")], ["what was paid is credited"]),
        ([BOUGHT], [msgspec.structs.replace(BOOKED, amount=1)], ["what was paid is credited"]),
        ([BOUGHT], [msgspec.structs.replace(BOOKED, taken_back=0)], ["what Stripe took back is taken back"]),
        ([], [BOOKED], ["only what was paid is credited"]),
    ],
)
def test_a_purchase_is_credited_as_it_stands_at_stripe(
    purchases: list[Purchase], booked: list[BookedTopup], rules: list[str]
) -> None:
    assert [violation.rule for violation in judge_topups(purchases, booked)] == rules
