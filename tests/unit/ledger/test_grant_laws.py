"""Whatever is granted, held, charged and corrected while time passes: grants are spent first, and end as they said."""

from datetime import timedelta
from typing import Any, ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test
from msgspec.structs import replace

from ledger import ExpireGrant, ExpireHold, OpenAccount, SettleHold, VoidHold
from ledger.events import HoldPlaced
from tests import strategies
from tests.unit.ledger.machine import ModelledBooks
from tests.unit.ledger.scenes import credit, request_topup, reverse

ACCOUNT = strategies.ACCOUNTS[0]
amounts = st.integers(min_value=1, max_value=60)
lifetimes = st.sampled_from((None, 1, 5, 5, 10, 20, 20, 40))
hold_commands = st.one_of(
    *(strategies.extensions, strategies.draws, strategies.settlements, strategies.voids),
    st.builds(ExpireHold, stream_id=st.just(ACCOUNT), hold_id=strategies.hold_ids, reason=st.just("worker_gone")),
)


class GrantsMachine(ModelledBooks):
    """One account with grants that expire soon, paid money, and holds of before and after."""

    met: ClassVar[set[str]] = set()

    @initialize(paid=st.integers(0, 60), amount=amounts, lifetime=lifetimes)
    def an_account_with_paid_money_and_a_grant(self, paid: int, amount: int, lifetime: int | None) -> None:
        self.submit([OpenAccount(stream_id=ACCOUNT, currency="USD")])
        if paid:
            self.submit([request_topup(amount=paid), credit()])
        self.grant(amount, lifetime, 50)

    @rule(amount=amounts, lifetime=lifetimes, priority=st.sampled_from((0, 50, 50, 100)))
    def grant(self, amount: int, lifetime: int | None, priority: int) -> None:
        command = strategies.grant_credit(
            stream_id=ACCOUNT,
            amount_microcents=amount,
            idempotency_key=f"grant {len(self.log.events)}",
            expires_at=None if lifetime is None else self.now + timedelta(seconds=lifetime),
            priority=priority,
        )
        self.submit([command])

    @rule(step=st.sampled_from((1, 1, 5, 10, -1)))
    def time_passes(self, step: int) -> None:
        self.now += timedelta(seconds=step)

    @rule(hold_id=strategies.hold_ids, amount=st.integers(0, 60))
    def place(self, hold_id: str, amount: int) -> None:
        self.submit([strategies.place_hold(stream_id=ACCOUNT, hold_id=hold_id, amount_microcents=amount)])

    @rule()
    def place_a_hold_of_all_that_is_shown_as_available(self) -> None:
        account = self.log.books.accounts[ACCOUNT]
        available = max(account.as_of(max(self.now, account.at)).available, 0)
        hold = strategies.place_hold(
            stream_id=ACCOUNT, hold_id=f"hold of all {len(self.log.events)}", amount_microcents=available
        )

        self.submit([replace(hold, amount_microcents=available + 1)])
        assert hold.hold_id not in self.log.books.holds
        self.submit([hold])
        assert hold.hold_id in self.log.books.holds

    @precondition(lambda self: self.log.books.holds)
    @rule(data=st.data(), commands=st.lists(hold_commands, min_size=1, max_size=2))
    def go_on_with_a_hold(self, data: st.DataObject, commands: list[Any]) -> None:
        hold = self.log.hold(data.draw(st.sampled_from(sorted(self.log.books.holds))))
        self.submit([replace(command, stream_id=ACCOUNT, hold_id=hold.hold_id) for command in commands])

    @precondition(lambda self: self.log.books.holds)
    @rule(data=st.data())
    def end_a_hold_within_what_it_holds(self, data: st.DataObject) -> None:
        hold = self.log.hold(data.draw(st.sampled_from(sorted(self.log.books.holds))))
        used = data.draw(st.integers(0, hold.held))
        account = self.log.books.accounts[ACCOUNT]
        before = account.as_of(max(self.now, account.at)).available

        about = {"stream_id": ACCOUNT, "hold_id": hold.hold_id}
        self.submit([SettleHold(**about, amount_microcents=used, usage={}) if used else VoidHold(**about, reason="r")])

        assert before <= self.log.books.accounts[ACCOUNT].available

    @precondition(lambda self: self.log.books.holds)
    @rule(data=st.data(), above=st.integers(1, 30), is_late=st.booleans())
    def end_a_hold_above_all_there_is(self, data: st.DataObject, above: int, is_late: bool) -> None:
        hold = self.log.hold(data.draw(st.sampled_from(sorted(self.log.books.holds))))
        about = {"stream_id": ACCOUNT, "hold_id": hold.hold_id}
        if is_late:
            self.submit([ExpireHold(**about, reason="worker_gone")])
        account = self.log.books.accounts[ACCOUNT]
        amount = (0 if is_late else hold.held) + max(account.available, 0) + above
        self.submit([SettleHold(**about, amount_microcents=amount, usage={})])

    @rule(amount=amounts, share=st.integers(1, 60))
    def a_grant_expires_under_a_hold(self, amount: int, share: int) -> None:
        self.grant(amount, 1, 0)
        hold_id = f"hold across {len(self.log.events)}"
        self.submit([strategies.place_hold(stream_id=ACCOUNT, hold_id=hold_id, amount_microcents=share)])
        self.now += timedelta(seconds=2)

    @precondition(lambda self: self.model.charges)
    @rule(data=st.data(), command=strategies.reratings, amount=st.integers(0, 60))
    def correct_a_charge(self, data: st.DataObject, command: Any, amount: int) -> None:
        hold_id, reference = data.draw(st.sampled_from(sorted(self.model.charges, key=repr)))
        ordinal = len(self.model.charges[hold_id, reference])
        about = {"hold_id": hold_id, "reference": reference, "ordinal": ordinal, "key_id": None}
        self.submit([replace(command, **about, stream_id=ACCOUNT, amount_microcents=amount)])

    @rule(amount=amounts, refund=st.integers(1, 60))
    def a_charge_is_corrected_down_after_its_grant_expired(self, amount: int, refund: int) -> None:
        self.a_grant_expires_under_a_hold(amount, amount)
        hold_id = self.log.events[-1].event.hold_id if isinstance(self.log.events[-1].event, HoldPlaced) else None
        if hold_id is None:  # debt stood in the way
            return
        about = {"stream_id": ACCOUNT, "hold_id": hold_id}
        self.submit([SettleHold(**about, amount_microcents=amount, usage={})])
        self.submit([strategies.rerate_charge(**about, ordinal=1, amount_microcents=max(amount - refund, 0))])

    @rule(amount=st.integers(-60, 60).filter(bool), key=st.integers(0, 10))
    def adjust(self, amount: int, key: int) -> None:
        self.submit([strategies.adjust_balance(stream_id=ACCOUNT, amount_microcents=amount, idempotency_key=str(key))])

    @precondition(lambda self: self.log.credited())
    @rule(total=st.integers(0, 60), reason=st.sampled_from(("one", "another")))
    def take_a_payment_back(self, total: int, reason: str) -> None:
        self.submit([reverse(total, "dispute", reason)])

    @precondition(lambda self: self.log.books.accounts[ACCOUNT].grants)
    @rule(data=st.data())
    def sweep_a_grant_twice(self, data: st.DataObject) -> None:
        grant = data.draw(st.sampled_from(self.log.books.accounts[ACCOUNT].grants))
        self.submit([ExpireGrant(stream_id=ACCOUNT, grant_id=grant.grant_id)] * 2)


#: What the random sequences must have met: a generator that is too tidy proves nothing.
EVERY_OUTCOME = {
    *("grant.expired", "GrantNotExpired", "InsufficientFunds", "overrun", "debt", "late debt", "debt of a top-up"),
    *("kept for a hold", "paid by what had expired", "given back to a grant", "given back to what had expired"),
    *("corrected from a grant", "adjusted from a grant"),
}


def test_any_sequence_about_grants_while_time_passes_equals_the_model() -> None:
    GrantsMachine.met.clear()

    run_state_machine_as_test(GrantsMachine, settings=settings(stateful_step_count=40))

    assert EVERY_OUTCOME - GrantsMachine.met == set()
