"""Whatever providers report, how often and in which order: a payment is credited once, and the books stay sound."""

from typing import Any, ClassVar, get_args

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test
from msgspec.structs import replace

from ledger import OpenAccount, ReinstateTopup, ReverseTopup, SettleHold
from ledger.events import ReversalKind, TopupEvent
from ledger.money import ZERO
from tests import strategies
from tests.unit.ledger.machine import ModelledBooks


class TopupsMachine(ModelledBooks):
    """Top-ups of few ids, paid by few payments, and requests that spend what they credit."""

    met: ClassVar[set[str]] = set()

    @initialize()
    def two_accounts(self) -> None:
        self.submit([OpenAccount(stream_id=account, currency="USD") for account in strategies.ACCOUNTS])

    @rule(commands=st.lists(strategies.topup_commands | strategies.grants, min_size=1, max_size=4))
    def submit_some(self, commands: list[Any]) -> None:
        self.submit(commands)

    @precondition(lambda self: self.log.credited())
    @rule(data=st.data(), usage=strategies.usages)
    def spend_everything(self, data: st.DataObject, usage: dict[str, Any]) -> None:
        topup_id = data.draw(st.sampled_from([event.topup_id for event in self.log.credited()]))
        account = self.log.books.topups[topup_id].account_id
        state = self.log.books.accounts[account]
        amount = max(state.as_of(max(self.now, state.at)).available, 0)
        hold = strategies.place_hold(
            stream_id=account, hold_id=f"hold_{len(self.model.holds)}", amount_microcents=amount
        )
        self.submit([hold, SettleHold(stream_id=account, hold_id=hold.hold_id, amount_microcents=amount, usage=usage)])

    @precondition(lambda self: self.model.topups.by_id)
    @rule(data=st.data(), commands=st.lists(strategies.topup_commands, min_size=1, max_size=4))
    def submit_about_a_topup(self, data: st.DataObject, commands: list[Any]) -> None:
        topup_id = data.draw(st.sampled_from(sorted(self.model.topups.by_id)))
        account = self.model.topups.by_id[topup_id]["account"]
        self.submit([replace(command, stream_id=account, topup_id=topup_id) for command in commands])

    @precondition(lambda self: self.log.credited())
    @rule(data=st.data(), commands=st.lists(strategies.reversals | strategies.reinstatements, min_size=1, max_size=3))
    def take_back_and_reinstate(self, data: st.DataObject, commands: list[Any]) -> None:
        topup_id = data.draw(st.sampled_from([event.topup_id for event in self.log.credited()]))
        account = self.model.topups.by_id[topup_id]["account"]
        self.submit([replace(command, stream_id=account, topup_id=topup_id) for command in commands])

    @precondition(lambda self: self.log.credited())
    @rule(data=st.data(), kind=strategies.reversal_kinds)
    def take_all_of_a_topup_back(self, data: st.DataObject, kind: ReversalKind) -> None:
        topup = self.log.books.topups[data.draw(st.sampled_from([event.topup_id for event in self.log.credited()]))]
        total = topup.amount - topup.reversed + topup.reversed_by(kind)
        everything = ReverseTopup(
            stream_id=topup.account_id, topup_id=topup.topup_id, kind=kind, total_microcents=total, reason="all"
        )
        self.submit([everything])

    @precondition(lambda self: any(topup.reversed for topup in self.log.books.topups.values()))
    @rule(data=st.data())
    def give_all_of_a_topup_back(self, data: st.DataObject) -> None:
        taken_back = [
            (topup, kind)
            for topup in self.log.books.topups.values()
            for kind in get_args(ReversalKind)
            if topup.reversed_by(kind)
        ]
        topup, kind = data.draw(st.sampled_from(taken_back))
        nothing = ReinstateTopup(
            stream_id=topup.account_id, topup_id=topup.topup_id, kind=kind, total_microcents=ZERO, reason="won"
        )
        self.submit([nothing])


#: What the random sequences must have met: a generator that is too tidy proves nothing.
EVERY_OUTCOME = {
    *(kind.__struct_config__.tag for kind in TopupEvent.__args__),
    *("TopupUnknown", "TopupNotCredited", "TopupMismatch", "TopupOver", "InvalidAmount", "IdempotencyMismatch"),
    *("replayed", "debt of a top-up"),
}


def test_any_sequence_of_reports_about_topups_equals_the_model() -> None:
    TopupsMachine.met.clear()

    run_state_machine_as_test(TopupsMachine, settings=settings(stateful_step_count=30))

    assert EVERY_OUTCOME - TopupsMachine.met == set()
