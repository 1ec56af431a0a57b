"""The rules: what each ending of a request permits, and what the books must say in any case.

``PERMITTED`` is the table to judge. A row says what a request may have been charged at least and at most, by how its
answer ended for the client and whether anything of it was received:

- *final usage*: exactly what the backend counted for the whole answer, prompt and all;
- *received*: the prompt, and as many tokens as the client got to see;
- *received before*: the same without what came in the last moment: a worker writes down what it delivered after it has,
  and may be killed between the two;
- *written*: the prompt, and as many tokens as the backends wrote to us for it, over all attempts;
- *nothing*: not even the prompt.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

import msgspec

from tests.acceptance.prices import MICROCENT, price_in_cents
from tests.faults.buying import Purchase
from tests.faults.clients import Seen
from tests.faults.evidence import Attempt, BookedHold, BookedTopup, Books, Case
from tests.faults.furnishing import MICROCENTS_PER_CENT
from tollgate.background import SWEEP_EVERY_S

#: A hold outlives its request by three sweeps at most, and what a loaded machine takes to notice and to write.
OUTLIVES_S = 3 * SWEEP_EVERY_S + 6.0
#: Who leaves so shortly before an answer can reach them may be charged for it: nobody could know yet.
WINDOW_S = 1.0
#: What a worker delivered so shortly before it was killed may not be written down yet.
LAST_MOMENT_S = 0.1


class Ending(StrEnum):
    """How an answer ended, as its client saw it."""

    WHOLE = "whole"
    CURTAILED = "curtailed for want of money"
    REFUSED = "refused"  # an error in place of an answer
    BROKEN = "broken off by us or the backend"  # and the client was told by an error event
    LEFT = "left by the client"
    LOST = "lost with the connection"  # a worker died
    UNSEEN = "of nobody we know"


class Bound(StrEnum):
    FINAL_USAGE = "final usage"
    RECEIVED = "received"
    RECEIVED_BEFORE = "received before"
    WRITTEN = "written"
    NOTHING = "nothing"


class Permitted(NamedTuple):
    least: Bound
    most: Bound


_FREE = Permitted(Bound.NOTHING, Bound.NOTHING)
_SOME, _NONE, _UNDER_WAY, _WHATEVER = "some", "none", "none, but it may have been on its way", "whatever"
_KEPT = "whatever, with an Idempotency-Key"  # an answer that dies with its worker will be asked for again
_SWEPT = "whatever, with an Idempotency-Key and a hold that was swept"  # the next try is served anew

#: By the ending, and by whether tokens of the answer were received.
PERMITTED: dict[tuple[Ending, str], Permitted] = {
    (Ending.WHOLE, _WHATEVER): Permitted(Bound.FINAL_USAGE, Bound.FINAL_USAGE),
    (Ending.CURTAILED, _WHATEVER): Permitted(Bound.RECEIVED, Bound.RECEIVED),
    (Ending.REFUSED, _WHATEVER): _FREE,
    (Ending.BROKEN, _WHATEVER): Permitted(Bound.RECEIVED, Bound.RECEIVED),
    (Ending.BROKEN, _SWEPT): _FREE,
    (Ending.LEFT, _SOME): Permitted(Bound.RECEIVED, Bound.WRITTEN),
    (Ending.LEFT, _NONE): _FREE,
    (Ending.LEFT, _UNDER_WAY): Permitted(Bound.NOTHING, Bound.WRITTEN),
    (Ending.LOST, _SOME): Permitted(Bound.RECEIVED_BEFORE, Bound.WRITTEN),
    (Ending.LOST, _NONE): _FREE,
    (Ending.LOST, _UNDER_WAY): Permitted(Bound.NOTHING, Bound.WRITTEN),
    (Ending.LEFT, _KEPT): Permitted(Bound.NOTHING, Bound.WRITTEN),
    (Ending.LOST, _KEPT): Permitted(Bound.NOTHING, Bound.WRITTEN),
    (Ending.UNSEEN, _WHATEVER): _FREE,
}


class Violation(msgspec.Struct, frozen=True):
    """One rule that was broken, with what is needed to look into it."""

    rule: str
    about: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.about}"


def ending_of(seen: Seen) -> Ending:
    if seen.is_whole:
        return Ending.CURTAILED if seen.is_curtailed else Ending.WHOLE
    if seen.left:
        return Ending.LEFT
    if seen.error is not None:
        return Ending.BROKEN if seen.status == 200 else Ending.REFUSED
    return Ending.LOST


def judge_request(case: Case) -> Iterator[Violation]:
    """The charge of one hold against what its client got and the backends made."""
    hold = case.hold
    yield from _judge_hold(hold)
    yield from _judge_receipt(case)
    if hold.charged_microcents:
        charged = hold.charged_microcents * MICROCENT
        if charged != _price(hold):
            yield Violation("the charge is the price of its usage", told(case))
    if not case.seen:
        yield from _judge_charge(case, None)
    for seen in case.seen:
        yield from _judge_charge(case, seen)
        if not _says_its_cost(seen, hold):
            yield Violation("the answer says what it cost", told(case))


def _judge_receipt(case: Case) -> Iterator[Violation]:
    """What the end of a hold says of how it was served; one that the sweep ended cannot say anything."""
    hold = case.hold
    if hold.served:
        told_delivered = hold.served.get("delivered_tokens", 0)
        if told_delivered != hold.usage.get("output_tokens", 0):
            yield Violation("the receipt says what was delivered", f"{hold.served} {told(case)}")
        made = sum(attempt.completion_tokens for attempt in case.attempts)
        if not told_delivered <= hold.served.get("generated_tokens", 0) <= made:
            yield Violation("the receipt says what was generated", f"{hold.served} {told(case)}")
    if any(seen.ask.retry_count != hold.retry_count for seen in case.seen):
        yield Violation("the receipt says which try it was", told(case))


def _says_its_cost(seen: Seen, hold: BookedHold) -> bool:
    return not seen.is_whole or seen.cost_cents in (None, hold.charged_microcents * MICROCENT)


def _judge_hold(hold: BookedHold) -> Iterator[Violation]:
    if len(hold.ends) != 1:
        yield Violation("each hold ends exactly once", f"{hold.hold_id} of {hold.account_id}: {hold.ends}")
    if hold.charges > 1:
        yield Violation("each hold is charged once", f"{hold.hold_id} of {hold.account_id}")


def _judge_charge(case: Case, seen: Seen | None) -> Iterator[Violation]:
    ending = Ending.UNSEEN if seen is None else ending_of(seen)
    permitted = PERMITTED[ending, _received(case, seen, ending)]
    charged = case.hold.usage.get("output_tokens", 0) if case.hold.charged_microcents else 0
    if permitted.most is Bound.FINAL_USAGE:
        if not any(_is_usage_of(case.hold, attempt) for attempt in case.attempts):
            yield Violation("a whole answer costs exactly its usage", told(case))
        return
    tokens = {
        Bound.NOTHING: 0,
        Bound.RECEIVED: 0 if seen is None else seen.tokens,
        Bound.RECEIVED_BEFORE: 0 if seen is None else seen.tokens_until(seen.ended_at - LAST_MOMENT_S),
        Bound.WRITTEN: sum(map(_written, case.attempts)),
    }
    if charged < tokens[permitted.least]:
        yield Violation("what was received is charged", told(case))
    if charged > tokens[permitted.most]:
        yield Violation("nothing is charged that was not delivered", told(case))
    elif charged == 0 and case.hold.charged_microcents:
        yield Violation("a prompt alone is not charged", told(case))
    elif case.hold.charged_microcents and not any(
        case.hold.usage["input_tokens"] == attempt.prompt_tokens for attempt in case.attempts
    ):
        yield Violation("the prompt is charged as it was counted", told(case))


def _received(case: Case, seen: Seen | None, ending: Ending) -> str:
    if seen is not None and ending is Ending.BROKEN and seen.ask.idempotency_key is not None and case.hold.is_swept:
        return _SWEPT
    if seen is None or ending not in (Ending.LEFT, Ending.LOST):
        return _WHATEVER
    if seen.ask.idempotency_key is not None:
        return _KEPT
    if seen.tokens:
        return _SOME
    return _UNDER_WAY if any(_may_reach(seen, attempt) for attempt in case.attempts) else _NONE


def _may_reach(seen: Seen, attempt: Attempt) -> bool:
    """Whether anything of this attempt's answer could be on its way when the client's connection ended."""
    answerable_at = attempt.started_at + seen.ask.answerable_after_s if attempt.stream else attempt.ended_at
    return bool(attempt.tokens_written) and seen.ended_at >= answerable_at - WINDOW_S


def _written(attempt: Attempt) -> int:
    """A stream's journal counts what was written when the next token is due: those of one step may be written and not
    counted."""
    if not attempt.stream:
        return attempt.tokens_written
    return attempt.completion_tokens if attempt.outcome == "aborted" else attempt.tokens_written


def _is_usage_of(hold: BookedHold, attempt: Attempt) -> bool:
    counted = (attempt.prompt_tokens, attempt.cached_tokens, attempt.completion_tokens)
    usage = hold.usage
    charged = (usage.get("input_tokens"), usage.get("cached_input_tokens", 0), usage.get("output_tokens"))
    return bool(hold.charges) and charged == counted


def _price(hold: BookedHold) -> Decimal:
    return price_in_cents(
        hold.model,
        input_tokens=hold.usage["input_tokens"],
        cached_input_tokens=hold.usage.get("cached_input_tokens", 0),
        output_tokens=hold.usage["output_tokens"],
    )


# --- beyond single charges


def judge_lives(cases: Iterable[Case], outages: list[tuple[float, float]]) -> Iterator[Violation]:
    """A hold ends soon after its request; while Postgres or its way is out, nobody can end it."""
    for case in cases:
        if case.hold.ended_at is None or not case.seen:
            continue
        over_at = max(seen.ended_at for seen in case.seen)
        for start, end in sorted(outages):
            if start <= over_at + OUTLIVES_S:
                over_at = max(over_at, end)
        if case.hold.ended_at > over_at + OUTLIVES_S:
            late_s = case.hold.ended_at - over_at
            yield Violation("a hold does not outlive its request", f"by {late_s:.1f} s: {told(case)}")


def judge_forwarding(books: Books, attempts: dict[str, list[Attempt]]) -> Iterator[Violation]:
    """No request reaches a backend before its hold is written down."""
    placed = {hold.request_id: hold for hold in books.holds.values()}
    for request_id, tries in attempts.items():
        hold = placed.get(request_id)
        if hold is None:
            yield Violation("nothing is forwarded without a hold", request_id)
        elif min(attempt.started_at for attempt in tries) < hold.placed_at:
            yield Violation("nothing is forwarded before its hold", f"{request_id} {hold.hold_id}")


def judge_answers(books: Books, seen: list[Seen]) -> Iterator[Violation]:
    """Whoever was served has a hold, and whoever was not is told why."""
    for each in seen:
        if each.is_unreadable:
            yield Violation("every answer can be read", f"request {each.request_id} {_told_by_client(each)}")
        if each.is_whole and each.hold_id not in books.holds:
            yield Violation("no answer is without a hold", f"request {each.ask.number} {each.request_id}")


def judge_keys(cases: Iterable[Case]) -> Iterator[Violation]:
    """One Idempotency-Key is charged once, and whoever repeats a request is told the same."""
    charged: dict[str, set[str]] = defaultdict(set)
    said: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        for seen in case.seen:
            key = seen.ask.idempotency_key
            if key is not None and case.hold.charged_microcents:
                charged[key].add(case.hold.hold_id)
                said[key] |= {seen.said} if seen.is_whole else set()
    for key, holds in charged.items():
        if len(holds) > 1:
            yield Violation("an Idempotency-Key is charged once", f"{key}: {sorted(holds)}")
        if len(said[key]) > 1:
            yield Violation("an Idempotency-Key has one answer", f"{key}: {sorted(holds)}")


def judge_topups(purchases: list[Purchase], booked: list[BookedTopup]) -> Iterator[Violation]:
    """What was paid is credited once and as it stands at Stripe, and nothing else is."""
    by_id = {each.topup_id: each for each in booked}
    for bought in purchases:
        topup = by_id.get(bought.topup_id)
        expected = (bought.payment_id, "credited", bought.cents * MICROCENTS_PER_CENT)
        if topup is None or (topup.payment_id, topup.status, topup.amount) != expected:
            yield Violation("what was paid is credited", f"{bought} {topup}")
        elif topup.taken_back != bought.taken_back_cents * MICROCENTS_PER_CENT:
            yield Violation("what Stripe took back is taken back", f"{bought} {topup}")
    paid = {bought.topup_id for bought in purchases}
    for topup in booked:
        if topup.status == "credited" and topup.topup_id not in paid:
            yield Violation("only what was paid is credited", str(topup))


def told(case: Case) -> str:
    """Everything about a request in one line."""
    hold = case.hold
    parts = [f"hold={hold.hold_id} request={hold.request_id} ends={hold.ends} reason={hold.reason!r}"]
    parts.append(f"charged={hold.charged_microcents} usage={hold.usage}")
    return " ".join([*parts, *map(_told_by_client, case.seen), *map(_told_by_backend, case.attempts)])


def _told_by_client(seen: Seen) -> str:
    ask = seen.ask
    return (
        f"[client {ask.number} {'stream' if ask.stream else 'plain'} n={ask.choices} {ask.manner} {ask.simulate}:"
        f" {ending_of(seen)}, status={seen.status} error={seen.error} tokens={seen.tokens} cost={seen.cost_cents}"
        f" key={ask.idempotency_key} {seen.started_at:.3f}–{seen.ended_at:.3f} {seen.trouble}]"
    )


def _told_by_backend(attempt: Attempt) -> str:
    return (
        f"[backend {attempt.outcome} status={attempt.status} prompt={attempt.prompt_tokens}"
        f" generated={attempt.completion_tokens} written={attempt.tokens_written}"
        f" {attempt.started_at:.3f}–{attempt.ended_at:.3f}]"
    )
