"""The ledger and the model side by side: groups of any size, under a clock that moves as it likes."""

from datetime import timedelta
from typing import Any, ClassVar

from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ledger import StoredEvent
from ledger.events import (
    BalanceAdjusted,
    ChargeRerated,
    CreditGranted,
    GrantExpired,
    HoldDrawn,
    HoldExpired,
    HoldPlaced,
    HoldSettled,
    HoldSettledLate,
    TopupCredited,
    TopupReinstated,
    TopupReversed,
)
from ledger.group import EndEvent
from tests import strategies
from tests.unit.ledger.model import Model
from tests.unit.ledger.model_of_grants import NEVER
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
            self._note_grants(stored)
        if all(kind != "accepted" for kind, _ in results):
            assert before == as_bytes(self.log.books)

    def _note_grants(self, stored: StoredEvent) -> None:
        for grant in self.log.books.accounts[stored.stream_id].grants:
            self.met |= {"kept for a hold"} if grant.has_expired and grant.left else set()
        event = stored.event
        moved = event.grants_moved if isinstance(event, ChargeRerated) else getattr(event, "from_grants", ())
        for share in moved:
            had_expired = share.expires_at is not None and share.expires_at <= stored.at
            if isinstance(event, ChargeRerated):
                what = "given back to" if event.refunded_microcents else "corrected from"
            else:
                what = "adjusted from" if isinstance(event, BalanceAdjusted) else "paid by"
            self.met.add(f"{what} {'what had expired' if had_expired else 'a grant'}")

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
    def every_grant_is_what_the_model_says(self) -> None:
        for account_id, account in self.model.accounts.items():
            expected = [
                (i, grant["left"], grant["lapsed"], grant["priority"], grant["expires"], grant["has_expired"])
                for i, grant in account["grants"].open().items()
            ]
            assert expected == [
                (grant.grant_id, grant.left, grant.lapsed, grant.priority, grant.expires_at or NEVER, grant.has_expired)
                for grant in self.log.books.accounts[account_id].grants
            ]

    @invariant()
    def what_was_granted_is_left_or_lapsed_or_taken_or_expired(self) -> None:
        for account_id, state in self.log.books.accounts.items():
            events = [stored.event for stored in self.log.stream(account_id)]
            there = {grant.grant_id: grant.left + grant.lapsed for grant in state.grants}
            assert there == {grant_id: amount for grant_id, amount in left_of_grants(events).items() if amount}

    @invariant()
    def paid_money_is_what_came_in_less_what_grants_did_not_pay(self) -> None:
        for account_id, state in self.log.books.accounts.items():
            events = [stored.event for stored in self.log.stream(account_id)]
            assert sum(map(paid_by, events)) == state.paid
            assert 0 <= state.refundable <= max(state.paid, 0)

    @invariant()
    def only_holds_of_before_its_expiry_take_of_a_grant(self) -> None:
        for stored in self.log.events:
            since = stored.at if isinstance(stored.event, HoldSettledLate) else getattr(stored.event, "placed_at", None)
            for share in getattr(stored.event, "from_grants", ()):
                is_charge = isinstance(stored.event, HoldSettled | HoldDrawn | HoldSettledLate)
                assert not is_charge or share.expires_at is None or since < share.expires_at

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
                    event.amount_microcents * (1 if isinstance(event, CreditGranted) else -1)
                    for event in events
                    if isinstance(event, CreditGranted | GrantExpired)
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
            assert credited == account.available + held + spent + account.lapsed

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
                "grant.expired": lambda e: -e.amount_microcents,
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


def left_of_grants(events: list[Any]) -> dict[str, int]:
    """What the events give to each grant, less what they take of it."""
    left: dict[str, int] = {}
    for event in events:
        match event:
            case CreditGranted(grant_id=str(grant_id)):
                left[grant_id] = event.amount_microcents
            case GrantExpired():
                left[event.grant_id] -= event.amount_microcents
            case ChargeRerated():
                sign = 1 if event.refunded_microcents else -1
                for share in event.grants_moved:
                    left[share.grant_id] += sign * share.amount_microcents
            case _:
                for share in getattr(event, "from_grants", ()):
                    left[share.grant_id] -= share.amount_microcents
    return left


def paid_by(event: Any) -> int:
    """What paid money gains by the event; below zero: loses."""
    granted = sum(share.amount_microcents for share in getattr(event, "from_grants", ()))
    match event:
        case TopupCredited() | TopupReinstated():
            return event.amount_microcents
        case TopupReversed():
            return -event.amount_microcents
        case BalanceAdjusted():
            return event.credited_microcents - event.debited_microcents + granted
        case HoldSettled() | HoldSettledLate() | HoldDrawn():
            return granted - event.amount_microcents
        case ChargeRerated():
            moved = sum(share.amount_microcents for share in event.grants_moved)
            return event.refunded_microcents - moved if event.refunded_microcents else moved - event.charged_microcents
        case _:
            return 0
