"""Any sequence of commands about accounts, keys, holds and charges equals a simple model."""

from typing import Any, ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test
from msgspec.structs import replace

from ledger import CreateKey, GrantCredit, OpenAccount
from ledger.events import Event, GrantExpired, ProgramAssigned, ProgramRetired, RatePublished, TopupEvent
from ledger.providers import ProviderEvent
from tests import strategies
from tests.unit.ledger.machine import ModelledBooks


class HoldsMachine(ModelledBooks):
    """Anything that can be asked, and more often what follows from what there is of keys, holds and charges."""

    met: ClassVar[set[str]] = set()

    @initialize(credit=st.integers(min_value=1, max_value=200), rpm=st.sampled_from((None, 1, 2, 6)))
    def an_account_with_credit_and_a_key(self, credit: int, rpm: int | None) -> None:
        account, key = strategies.ACCOUNTS[0], strategies.KEYS[0]
        self.submit([OpenAccount(stream_id=account, currency="USD")])
        self.submit(
            [
                GrantCredit(
                    stream_id=account, amount_microcents=credit, reason="r", granted_by="u", idempotency_key="first"
                )
            ]
        )
        self.submit([CreateKey(stream_id=account, key_id=key, rate_limit_rpm=rpm, monthly_budget_microcents=150)])

    @rule(commands=st.lists(strategies.commands, min_size=1, max_size=4))
    def submit_some(self, commands: list[Any]) -> None:
        self.submit(commands)

    @rule(hold_ids=st.lists(strategies.hold_ids, min_size=2, unique=True), amount=st.integers(0, 60))
    def submit_a_burst_of_one_key(self, hold_ids: list[str], amount: int) -> None:
        account, key = strategies.ACCOUNTS[0], strategies.KEYS[0]
        self.submit(
            [
                strategies.place_hold(stream_id=account, hold_id=hold_id, amount_microcents=amount, key_id=key)
                for hold_id in hold_ids
            ]
        )

    @precondition(lambda self: self.log.books.holds)
    @rule(data=st.data(), commands=st.lists(strategies.hold_commands, min_size=1, max_size=3))
    def submit_about_an_open_hold(self, data: st.DataObject, commands: list[Any]) -> None:
        hold = self.log.hold(data.draw(st.sampled_from(sorted(self.log.books.holds))))
        self.submit([replace(command, stream_id=hold.account_id, hold_id=hold.hold_id) for command in commands])

    @precondition(lambda self: self.expired_holds())
    @rule(data=st.data(), command=strategies.settlements)
    def settle_an_expired_hold(self, data: st.DataObject, command: Any) -> None:
        hold_id = data.draw(st.sampled_from(self.expired_holds()))
        hold = self.model.holds[hold_id]
        above = max(self.model.available(hold["account"]), 0) + 1
        amount = data.draw(st.sampled_from((command.amount_microcents, above)))
        about = {"stream_id": hold["account"], "hold_id": hold_id, "key_id": hold["key"]}
        self.submit([replace(command, **about, amount_microcents=amount)])

    def expired_holds(self) -> list[str]:
        return sorted(hold_id for hold_id, hold in self.model.holds.items() if hold["has_expired"])

    @precondition(lambda self: self.model.charges)
    @rule(data=st.data(), command=strategies.reratings)
    def correct_a_charge(self, data: st.DataObject, command: Any) -> None:
        hold_id, reference = data.draw(st.sampled_from(sorted(self.model.charges, key=repr)))
        hold = self.model.holds[hold_id]
        correction = replace(
            command, stream_id=hold["account"], hold_id=hold_id, reference=reference, key_id=hold["key"]
        )
        self.submit([correction])


#: Events that no command of the sequences makes: of the price book, because to the ledger they are all alike, and those
#: of top-ups, of providers and of grants that expire, which have sequences of their own.
OTHER_EVENTS = (
    *(ProgramAssigned, ProgramRetired, RatePublished, GrantExpired),
    *TopupEvent.__args__,
    *ProviderEvent.__args__,
)

#: What the random sequences must have met: a generator that is too tidy proves nothing.
EVERY_OUTCOME = {
    *(kind.__struct_config__.tag for kind in Event.__args__ if kind not in OTHER_EVENTS),
    *("AccountUnknown", "KeyUnknown", "KeyInactive", "HoldUnknown", "HoldAlreadyEnded", "HoldNotOverdue"),
    *("InvalidAmount", "InsufficientFunds", "BudgetExceeded", "RateLimited", "DrawExceedsHold", "PlanOutdated"),
    *("ChargeUnknown", "IdempotencyMismatch", "replayed", "overrun", "debt", "late debt"),
    *("InvalidGrant", "GrantNotExpired"),
}


@pytest.mark.money_bug(18, 46)
def test_any_sequence_of_commands_equals_the_model() -> None:
    HoldsMachine.met.clear()

    run_state_machine_as_test(HoldsMachine, settings=settings(stateful_step_count=45))

    assert EVERY_OUTCOME - HoldsMachine.met == set()
