"""What providers do with our money: each fee and payout once, whoever tells of it, and a payout fails only once."""

from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from msgspec.structs import replace

from ledger.providers import (
    ChargeProcessorFee,
    FailPayout,
    InitiatePayout,
    PayoutEvent,
    PayoutFailed,
    PayoutInitiated,
    PayoutPaid,
    PayPayout,
    ProcessorFeeCharged,
    ProviderEvent,
    ResolveBreak,
)
from tests import strategies
from tests.unit.ledger.paper_log import PaperLog, as_bytes
from tests.unit.ledger.provider_scenes import USDC, fail_payout, fee, pay_out, payout, resolve
from tests.unit.ledger.scenes import NOON, Scene, funded

LARGEST_AMOUNT = (2**63 - 1) // 10


def test_a_payout_that_fails_on_its_way_never_arrived() -> None:
    scene = Scene(payout(100), fail_payout())

    assert scene.last() == PayoutFailed(
        payout_id="po_1", in_transit_microcents=100, paid_microcents=0, currency="USD", reason="account_closed"
    )


def test_a_payout_can_fail_after_it_was_paid_and_is_never_paid_again() -> None:
    scene = Scene(payout(100), pay_out(), fail_payout())

    assert (scene.last().in_transit_microcents, scene.last().paid_microcents) == (0, 100)
    assert scene.submit(pay_out())[0] == "replayed"


def test_what_happens_to_a_payout_within_one_group_follows_from_each_other() -> None:
    scene = Scene()

    results = scene.group(payout(100), pay_out(), fail_payout(), pay_out())

    assert [kind for kind, _ in results] == ["accepted", "accepted", "accepted", "replayed"]
    assert (scene.last().in_transit_microcents, scene.last().paid_microcents) == (0, 100)


@pytest.mark.parametrize(
    ("command", "refusal"),
    [
        (pay_out("po_2"), "PayoutUnknown"),
        (fail_payout("po_2"), "PayoutUnknown"),
        (pay_out("po_1", stream=USDC), "PayoutUnknown"),
        (pay_out("po_3"), "PayoutOver"),
        (payout(99), "IdempotencyMismatch"),
        (payout(100, currency="EUR"), "IdempotencyMismatch"),
        (payout(0, "po_4"), "InvalidAmount"),
        (payout(-1, "po_4"), "InvalidAmount"),
        (fee(0), "InvalidAmount"),
        (fee(LARGEST_AMOUNT + 1), "InvalidAmount"),
        (fee(-LARGEST_AMOUNT - 1), "InvalidAmount"),
        (fee(8, "txn_known"), "IdempotencyMismatch"),
        (fee(7, stream="acct_a"), "WrongStream"),
        (fee(7, stream="prices"), "WrongStream"),
        (replace(resolve(), provider="usdc"), "WrongStream"),
    ],
)
def test_what_cannot_follow_is_refused(command: Any, refusal: str) -> None:
    scene = funded(100, payout(100), payout(100, "po_3"), fail_payout("po_3"), fee(7, "txn_known"))

    assert type(scene.refusal(command)).__name__ == refusal


def test_a_break_is_resolved_once_and_by_one_reason() -> None:
    scene = Scene(resolve())

    assert scene.submit(resolve())[0] == "replayed"
    assert type(scene.refusal(resolve(reason="a mistake"))).__name__ == "IdempotencyMismatch"


class ProvidersMachine(RuleBasedStateMachine):
    """Providers' commands in any order, beside a model of dicts."""

    met: ClassVar[set[str]] = set()

    def __init__(self) -> None:
        super().__init__()
        self.log = PaperLog()
        self.said: dict[tuple[str, str, str], Any] = {}

    @rule(commands=st.lists(strategies.provider_commands, min_size=1, max_size=4))
    def submit(self, commands: list[Any]) -> None:
        expected = [self._judge(command) for command in commands]

        results = self.log.submit(commands, NOON)

        for command, (kind, detail), outcome in zip(commands, results, expected, strict=True):
            word = type(detail).__name__ if kind == "refused" else kind
            assert word == outcome, command
            self.met.add(word)
        self.met |= {stored.event.__struct_config__.tag for stored in self.log.events}  # type: ignore[misc]

    def _judge(self, command: Any) -> str:
        match command:
            case ChargeProcessorFee():
                name, is_right = command.reference, 0 < abs(command.amount_microcents) <= LARGEST_AMOUNT
            case InitiatePayout():
                name, is_right = command.payout_id, 0 < command.amount_microcents <= LARGEST_AMOUNT
            case PayPayout() | FailPayout():
                name, is_right = command.payout_id, True
            case ResolveBreak():
                name, is_right = command.break_id, command.stream_id == f"provider:{command.provider}"
        key = (command.stream_id, type(command).__name__, name)
        if key in self.said:
            return "replayed" if self.said[key] == command else "IdempotencyMismatch"
        if isinstance(command, PayPayout | FailPayout):
            if (command.stream_id, "InitiatePayout", name) not in self.said:
                return "PayoutUnknown"
            if (command.stream_id, "FailPayout", name) in self.said:
                return "PayoutOver"
        if not is_right:
            return "WrongStream" if isinstance(command, ResolveBreak) else "InvalidAmount"
        self.said[key] = command
        return "accepted"

    @invariant()
    def what_is_on_its_way_and_has_arrived_is_what_payouts_say(self) -> None:
        events = [(stored.stream_id, stored.event) for stored in self.log.events]
        for stream, event in events:
            if isinstance(event, PayoutInitiated):
                of_it = [
                    e
                    for s, e in events
                    if s == stream and isinstance(e, PayoutEvent) and e.payout_id == event.payout_id
                ]
                is_paid = any(isinstance(e, PayoutPaid) for e in of_it)
                has_failed = any(isinstance(e, PayoutFailed) for e in of_it)
                expected = (0 if is_paid or has_failed else event.amount_microcents,
                            event.amount_microcents if is_paid and not has_failed else 0)  # fmt: skip
                assert (in_transit(of_it), arrived(of_it)) == expected

    @invariant()
    def a_fee_is_charged_once(self) -> None:
        fees = [(s.stream_id, s.event.reference) for s in self.log.events if isinstance(s.event, ProcessorFeeCharged)]
        assert len(set(fees)) == len(fees)

    @invariant()
    def nobody_has_money_in_these_streams_and_they_follow_from_the_events(self) -> None:
        assert as_bytes(self.log.folded()) == as_bytes(self.log.books)
        for state in self.log.books.accounts.values():
            assert (state.currency, state.credited, state.spent, state.held) == ("XXX", 0, 0, 0)


def in_transit(events: list[PayoutEvent]) -> int:
    begun = sum(e.amount_microcents for e in events if isinstance(e, PayoutInitiated))
    paid = sum(e.amount_microcents for e in events if isinstance(e, PayoutPaid))
    return begun - paid - sum(e.in_transit_microcents for e in events if isinstance(e, PayoutFailed))


def arrived(events: list[PayoutEvent]) -> int:
    paid = sum(e.amount_microcents for e in events if isinstance(e, PayoutPaid))
    return paid - sum(e.paid_microcents for e in events if isinstance(e, PayoutFailed))


#: What the random sequences must have met.
EVERY_OUTCOME = {
    *(kind.__struct_config__.tag for kind in ProviderEvent.__args__),
    *("PayoutUnknown", "PayoutOver", "InvalidAmount", "IdempotencyMismatch", "WrongStream", "replayed"),
}


def test_any_sequence_of_what_providers_do_equals_the_model() -> None:
    ProvidersMachine.met.clear()

    run_state_machine_as_test(ProvidersMachine, settings=settings(stateful_step_count=20))

    assert EVERY_OUTCOME - ProvidersMachine.met == set()
