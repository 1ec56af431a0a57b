"""The ledger and the model side by side: groups of any size, under a clock that moves as it likes."""

from datetime import timedelta
from typing import Any, ClassVar

from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ledger.events import HoldExpired, HoldPlaced, HoldSettled, HoldSettledLate, TopupReversed
from ledger.group import EndEvent
from tests import strategies
from tests.unit.ledger.model import Model
from tests.unit.ledger.paper_log import PaperLog, as_bytes


class ModelledBooks(RuleBasedStateMachine):
    """Submits to the ledger and to the model, and compares after every step."""

    met: ClassVar[set[str]]  # what the sequences led to: event types, refusals, kinds of debt

    def __init__(self) -> None:
        super().__init__()
        self.log = PaperLog()
        self.model = Model()
        self.now = strategies.NEW_YEARS_EVE

    @rule(step=strategies.clock_steps)
    def the_clock_moves(self, step: timedelta) -> None:
        self.now += step

    def submit(self, commands: list[Any]) -> None:
        before, events_before = as_bytes(self.log.books), len(self.log.events)
        expected = [self.model.judge(command, self.now) for command in commands]

        results = self.log.submit(commands, self.now)

        for command, (kind, detail), (expected_kind, expected_detail) in zip(commands, results, expected, strict=True):
            assert expected_kind == kind, f"{command}: {detail!r}, expected {expected_detail}"
            self.met.add(type(detail).__name__ if kind == "refused" else kind)
            if kind == "refused":
                assert type(detail).__name__ in expected_detail
            else:
                assert expected_detail == detail
        for stored in self.log.events[events_before:]:
            self._note(stored.event)
        if all(kind != "accepted" for kind, _ in results):
            assert before == as_bytes(self.log.books)

    def _note(self, event: Any) -> None:
        self.met.add(event.__struct_config__.tag)
        if isinstance(event, HoldSettled):
            self.met |= {"overrun"} if event.overrun_microcents else set()
            self.met |= {"debt"} if event.debt_microcents else set()
        if isinstance(event, TopupReversed):
            taken_from = self.log.books.topups[event.topup_id].account_id
            self.met |= {"debt of a top-up"} if self.log.books.accounts[taken_from].debt else set()
        if isinstance(event, HoldSettledLate):
            self.met |= {"late debt"} if event.debt_microcents else set()

    @invariant()
    def every_account_is_what_the_model_says(self) -> None:
        assert self.model.accounts.keys() == self.log.books.accounts.keys()
        for account_id, expected in self.model.accounts.items():
            state = self.log.books.accounts[account_id]
            assert (expected["credited"], expected["spent"]) == (state.credited, state.spent)
            assert (self.model.held(account_id), self.model.available(account_id)) == (state.held, state.available)
            assert (expected["seq"], expected["at"], expected["currency"]) == (state.seq, state.at, state.currency)
            assert (expected["plan"], expected["automatic"]) == (state.plan, state.automatic_topup)
            assert max(-self.model.available(account_id), 0) == state.debt

    @invariant()
    def every_hold_is_what_the_model_says(self) -> None:
        open_holds = {i: hold for i, hold in self.model.holds.items() if hold["is_open"]}

        assert open_holds.keys() == self.log.books.holds.keys()
        for hold_id, expected in open_holds.items():
            state = self.log.books.holds[hold_id]
            assert (expected["left"], expected["drawn"]) == (state.held, state.drawn)
            assert (expected["month"], expected["expires_at"]) == (state.budget_month, state.expires_at)
            assert (expected["account"], expected["key"]) == (state.account_id, state.key_id)

    @invariant()
    def every_key_is_what_the_model_says(self) -> None:
        assert self.model.keys.keys() == self.log.books.keys.keys()
        for key_id, expected in self.model.keys.items():
            state = self.log.books.keys[key_id]
            assert (expected["is_active"], expected["account"]) == (state.is_active, state.account_id)
            assert (expected["rpm"], expected["budget"]) == (state.rate_limit_rpm, state.monthly_budget)
            assert expected["month"] == state.month
            assert self.model.month_sums(key_id, state.month) == (state.month_spent, state.month_held)

    @invariant()
    def every_topup_is_what_the_model_says(self) -> None:
        assert self.model.topups.by_id.keys() == self.log.books.topups.keys()
        for topup_id, expected in self.model.topups.by_id.items():
            state = self.log.books.topups[topup_id]
            assert (expected["account"], expected["status"]) == (state.account_id, state.status)
            assert (expected["amount"], expected["asked"]) == (state.amount, (state.provider, state.asked))
            assert (expected["reference"], expected["payment"]) == (state.reference, state.payment_id)
            assert expected["taken"] == {
                "refund": state.refunded, "dispute": state.disputed, "reorganisation": state.reorganised,
            }  # fmt: skip
            assert 0 <= state.reversed <= (state.amount if state.status == "credited" else 0)

    @invariant()
    def a_topup_is_credited_at_most_once_and_so_is_a_payment(self) -> None:
        credited = self.log.credited()
        assert len({event.topup_id for event in credited}) == len(credited)
        assert len({(event.provider, event.payment_id) for event in credited}) == len(credited)

    @invariant()
    def credited_is_available_and_held_and_spent(self) -> None:
        for account_id, account in self.log.books.accounts.items():
            events = [stored.event for stored in self.log.stream(account_id)]
            credited = (
                sum(
                    getattr(event, "amount_microcents", 0)
                    for event in events
                    if event.__struct_config__.tag == "credit.granted"
                )
                + sum(
                    getattr(event, "credited_microcents", 0) - getattr(event, "debited_microcents", 0)
                    for event in events
                )
                + sum(
                    topup.amount - topup.reversed
                    for topup in self.log.books.topups.values()
                    if topup.account_id == account_id and topup.status == "credited"
                )
            )
            spent = sum(
                event.amount_microcents  # type: ignore[union-attr]
                for event in events
                if event.__struct_config__.tag in ("hold.settled", "hold.settled_late", "hold.drawn")
            ) + sum(
                getattr(event, "charged_microcents", 0) - getattr(event, "refunded_microcents", 0) for event in events
            )
            held = sum(hold.held for hold in self.log.books.holds.values() if hold.account_id == account_id)
            assert credited == account.available + held + spent

    @invariant()
    def seq_is_gapless_and_time_never_goes_back(self) -> None:
        for account_id in self.log.books.accounts:
            stream = self.log.stream(account_id)
            assert list(range(1, len(stream) + 1)) == [stored.seq for stored in stream]
            assert sorted(stored.at for stored in stream) == [stored.at for stored in stream]

    @invariant()
    def each_hold_is_placed_once_and_ends_at_most_once(self) -> None:
        placed = [stored.event.hold_id for stored in self.log.events if isinstance(stored.event, HoldPlaced)]
        ended = [stored.event.hold_id for stored in self.log.events if isinstance(stored.event, EndEvent)]
        assert len(set(placed)) == len(placed)
        assert len(set(ended)) == len(ended)
        assert set(ended) <= set(placed)

    @invariant()
    def each_hold_is_settled_at_most_once_and_late_only_after_it_expired(self) -> None:
        settled, expired = [], set()
        for stored in self.log.events:
            match stored.event:
                case HoldExpired(hold_id=hold_id):
                    expired.add(hold_id)
                case HoldSettled(hold_id=hold_id):
                    settled.append(hold_id)
                case HoldSettledLate(hold_id=hold_id):
                    assert hold_id in expired
                    settled.append(hold_id)
        assert len(set(settled)) == len(settled)

    @invariant()
    def the_states_follow_from_the_events_alone(self) -> None:
        assert as_bytes(self.log.folded()) == as_bytes(self.log.books)

    @invariant()
    def a_money_event_carries_the_balance_after_it(self) -> None:
        posted: dict[str, int] = {}
        for stored in self.log.events:
            event, fields = stored.event, stored.event.__struct_config__.tag
            delta = {
                "credit.granted": lambda e: e.amount_microcents,
                "balance.adjusted": lambda e: e.credited_microcents - e.debited_microcents,
                "hold.settled": lambda e: -e.amount_microcents,
                "hold.settled_late": lambda e: -e.amount_microcents,
                "hold.drawn": lambda e: -e.amount_microcents,
                "charge.rerated": lambda e: e.before_microcents - e.after_microcents,
                "topup.credited": lambda e: e.amount_microcents,
                "topup.reversed": lambda e: -e.amount_microcents,
                "topup.reinstated": lambda e: e.amount_microcents,
            }.get(fields, lambda e: 0)(event)
            posted[stored.stream_id] = posted.get(stored.stream_id, 0) + delta
            if stored.balance_microcents is not None:
                assert posted[stored.stream_id] == stored.balance_microcents
            else:
                assert delta == 0
