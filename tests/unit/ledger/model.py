"""The books a second time, as simply as they can be said: plain dicts, written from the design and not from the code.

A command is judged by collecting every reason there is against it. The ledger may name any of them; where there is
none it has to accept, and where there is one it has to refuse.
"""

import copy
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

from ledger import (
    AdjustBalance,
    AssignDepositAddress,
    ChangeAutomaticTopup,
    ChangePlan,
    CreateKey,
    CreditTopup,
    DeleteKey,
    DrawHold,
    ExpireGrant,
    ExpireHold,
    ExpireTopup,
    ExtendHold,
    FailTopup,
    GrantCredit,
    MarkTopupPending,
    OpenAccount,
    PlaceHold,
    RecordPriceEvent,
    ReinstateTopup,
    RequestTopup,
    RerateCharge,
    ReverseTopup,
    SettleHold,
    VoidHold,
)
from ledger.grants import grant_id_of
from tests.unit.ledger.model_of_grants import MOST, ModelOfGrants
from tests.unit.ledger.model_of_topups import LARGEST_AMOUNT, ModelOfTopups

PRICE_BOOK = "prices"

ACCEPTED = "accepted"
REPLAYED = "replayed"


class Model:
    """What every account, key and hold must be after the commands judged so far."""

    def __init__(self) -> None:
        self.accounts: dict[str, dict[str, Any]] = {}
        self.keys: dict[str, dict[str, Any]] = {}
        self.holds: dict[str, dict[str, Any]] = {}
        self.charges: dict[tuple[str, str | None], list[int]] = {}  # by hold and draw: the amount, then each corrected
        self.paid_by_grants: dict[tuple[str, str | None], dict[str, int]] = {}  # of each charge, by grant
        self.topups = ModelOfTopups()
        self.remembered: dict[tuple[str, str], tuple[Any, tuple[str, int]]] = {}  # what a key was used for, and where

    def judge(self, command: Any, now: datetime) -> tuple[str, tuple[str, int] | set[str]]:
        """What must become of the command: (ACCEPTED or REPLAYED, (stream, seq)), or ("refused", the reasons)."""
        before = self._first_submission_of(command)
        if before is not None:
            said, place = before
            return (REPLAYED, place) if said == _said_by(command) else ("refused", {_mismatch_of(command)})
        account = self.accounts.get(command.stream_id)
        at = now if account is None else max(now, account["at"])
        grants_before = None if account is None else copy.deepcopy(account["grants"])
        if account is not None:
            account["grants"].pass_time(at, self.open_holds(command.stream_id).values())
        reasons = _JUDGES[type(command)](self, command, account, at, now)
        if reasons:
            if account is not None:
                account["grants"] = grants_before
            return "refused", reasons
        account = self.accounts[command.stream_id]
        account["grants"].lapse_what_no_hold_needs(self.open_holds(command.stream_id).values())
        account["seq"] += 1
        account["at"] = at
        place = (command.stream_id, account["seq"])
        for name in _names_of(command):
            self.remembered.setdefault(name, (_said_by(command), place))
        if isinstance(command, TOPUP_COMMANDS):
            self.topups.by_id[command.topup_id]["last"] = place
        return ACCEPTED, place

    def available(self, account_id: str) -> int:
        account = self.accounts[account_id]
        lapsed: int = account["grants"].lapsed()
        return account["credited"] - account["spent"] - self.held(account_id) - lapsed

    def held(self, account_id: str) -> int:
        return sum(hold["left"] for hold in self.open_holds(account_id).values())

    def open_holds(self, account_id: str) -> dict[str, dict[str, Any]]:
        return {i: hold for i, hold in self.holds.items() if hold["account"] == account_id and hold["is_open"]}

    def month_sums(self, key_id: str, month: str) -> tuple[int, int]:
        """(spent, held) of a key in a month."""
        held = sum(
            hold["left"]
            for hold in self.holds.values()
            if hold["key"] == key_id and hold["month"] == month and hold["is_open"]
        )
        return self.keys[key_id]["spent"].get(month, 0), held

    def _first_submission_of(self, command: Any) -> tuple[Any, tuple[str, int]] | None:
        """What was said under the first of the command's names that is taken, and where it was written."""
        for name in _names_of(command):
            if name in self.remembered:
                said, place = self.remembered[name]
                if isinstance(command, SettleHold) and said == "ExpireHold":
                    return None  # it may be settled late
                return said, place
        reached = self.topups.place_of_what_is_reached(command)
        return None if reached is None else (_said_by(command), reached)

    # --- one judge for each command: the reasons against it, or its effect

    def _open(self, command: OpenAccount, account: Any, at: datetime, now: datetime) -> set[str]:
        self.accounts[command.stream_id] = {
            "currency": command.currency, "credited": 0, "spent": 0, "seq": 0, "at": at,
            "plan": None, "automatic": None, "grants": ModelOfGrants(),
        }  # fmt: skip
        return set()

    def _grant(self, command: GrantCredit, account: Any, at: datetime, now: datetime) -> set[str]:
        reasons = _unless(account, "AccountUnknown") | _unless(_is_bookable(command.amount_microcents), "InvalidAmount")
        if command.amount_microcents == 0:
            reasons |= {"InvalidAmount"}
        is_over = command.expires_at is not None and command.expires_at <= at
        reasons |= _unless(not is_over and 0 <= command.priority <= 100, "InvalidGrant")
        if account and len(account["grants"].open()) >= MOST:
            reasons |= {"TooManyGrants"}
        if not reasons:
            account["credited"] += command.amount_microcents
            grant_id = grant_id_of(command.stream_id, command.idempotency_key)
            account["grants"].grant(grant_id, command.amount_microcents, command.priority, command.expires_at)
        return reasons

    def _expire_grant(self, command: ExpireGrant, account: Any, at: datetime, now: datetime) -> set[str]:
        reasons = _unless(account, "AccountUnknown")
        lapsed = account["grants"].expire(command.grant_id) if account else 0
        if not reasons:
            account["credited"] -= lapsed
        return reasons or _unless(lapsed, "GrantNotExpired")

    def _adjust(self, command: AdjustBalance, account: Any, at: datetime, now: datetime) -> set[str]:
        amount = command.amount_microcents
        reasons = _unless(account, "AccountUnknown") | _unless(_is_bookable(abs(amount)) and amount, "InvalidAmount")
        if account and amount < 0 and self.available(command.stream_id) + amount < 0:
            reasons |= {"InsufficientFunds"}
        if not reasons:
            paid = max(self.available(command.stream_id) + self.held(command.stream_id) - account["grants"].left(), 0)
            account["grants"].charge(max(-amount - paid, 0))
            account["credited"] += amount
        return reasons

    def _topup(self, command: Any, account: Any, at: datetime, now: datetime) -> set[str]:
        if account is None:
            return {"AccountUnknown"}
        reasons, credited = self.topups.judge(command)
        account["credited"] += credited
        return reasons

    def _change_plan(self, command: ChangePlan, account: Any, at: datetime, now: datetime) -> set[str]:
        reasons = _unless(account, "AccountUnknown")
        if not reasons:
            account["plan"] = command.plan
        return reasons

    def _change_automatic_topup(
        self, command: ChangeAutomaticTopup, account: Any, at: datetime, now: datetime
    ) -> set[str]:
        reasons, wanted = _unless(account, "AccountUnknown"), command.automatic_topup
        if wanted is not None:
            is_possible = 0 <= wanted.threshold <= LARGEST_AMOUNT and 0 < wanted.amount <= wanted.monthly_cap
            reasons |= _unless(is_possible and wanted.monthly_cap <= LARGEST_AMOUNT, "InvalidAmount")
        if not reasons:
            account["automatic"] = wanted
        return reasons

    def _assign_address(self, command: AssignDepositAddress, account: Any, at: datetime, now: datetime) -> set[str]:
        return _unless(account, "AccountUnknown")

    def _create_key(self, command: CreateKey, account: Any, at: datetime, now: datetime) -> set[str]:
        reasons = _unless(account, "AccountUnknown")
        if command.rate_limit_rpm is not None and command.rate_limit_rpm < 1:
            reasons |= {"InvalidAmount"}
        if command.monthly_budget_microcents is not None:
            reasons |= _unless(_is_bookable(command.monthly_budget_microcents), "InvalidAmount")
        if command.key_id in self.keys:
            reasons |= {"IdempotencyMismatch"}
        if not reasons:
            self.keys[command.key_id] = {
                "account": command.stream_id,
                "is_active": True,
                "rpm": command.rate_limit_rpm,
                "budget": command.monthly_budget_microcents,
                "spent": {},
                "month": _month(at),
                "level": Fraction(0),
                "measured_at": None,
            }
        return reasons

    def _delete_key(self, command: DeleteKey, account: Any, at: datetime, now: datetime) -> set[str]:
        reasons = self._reasons_against_key(command.key_id, command.stream_id)
        if not reasons:
            self.keys[command.key_id]["is_active"] = False
        return reasons

    def _place(self, command: PlaceHold, account: Any, at: datetime, now: datetime) -> set[str]:
        amount, month = command.amount_microcents, _month(at)
        reasons = _unless(_is_bookable(amount), "InvalidAmount") | _unless(account, "AccountUnknown")
        key = None
        if command.key_id is not None:
            reasons |= self._reasons_against_key(command.key_id, command.stream_id)
            key = self.keys.get(command.key_id)
        if account and command.plan != account["plan"]:
            reasons |= {"PlanOutdated"}
        if account and amount > 0 and amount > self.available(command.stream_id):
            reasons |= {"InsufficientFunds"}
        if key is not None:
            reasons |= self._reasons_against_budget(command.key_id, month, amount)
            if key["rpm"] is not None and _level(key, now) + 1 > key["rpm"]:
                reasons |= {"RateLimited"}
        if reasons:
            return reasons
        if key is not None:
            key["month"] = month
            if key["rpm"] is not None:
                key["level"], key["measured_at"] = _level(key, now) + 1, now
        self.holds[command.hold_id] = {
            "account": command.stream_id,
            "placed_at": at,
            "key": command.key_id,
            "left": amount,
            "drawn": 0,
            "month": month,
            "expires_at": at + timedelta(seconds=command.lifetime_s),
            "is_open": True,
            "has_expired": False,
        }
        return set()

    def _extend(self, command: ExtendHold, account: Any, at: datetime, now: datetime) -> set[str]:
        hold, reasons = self._open_hold(command)
        if reasons:
            return reasons
        reasons = _unless(_is_bookable(command.total_microcents), "InvalidAmount")
        more = max(command.total_microcents - hold["left"] - hold["drawn"], 0)
        if more > 0 and more > self.available(command.stream_id):
            reasons |= {"InsufficientFunds"}
        # Known and accepted: a key remembers one month, so a hold of an earlier one is extended unjudged.
        if hold["key"] is not None and self.keys[hold["key"]]["month"] == hold["month"]:
            reasons |= self._reasons_against_budget(hold["key"], hold["month"], more)
        if not reasons:
            hold["left"] += more
            hold["expires_at"] = max(hold["expires_at"], at + timedelta(seconds=command.lifetime_s))
        return reasons

    def _draw(self, command: DrawHold, account: Any, at: datetime, now: datetime) -> set[str]:
        hold, reasons = self._open_hold(command)
        if reasons:
            return reasons
        reasons = _unless(_is_bookable(command.amount_microcents), "InvalidAmount")
        if command.amount_microcents > hold["left"]:
            reasons |= {"DrawExceedsHold"}
        if not reasons:
            shares = account["grants"].charge(
                command.amount_microcents, placed_at=hold["placed_at"], set_aside=hold["left"]
            )
            self.paid_by_grants[command.hold_id, command.reference] = shares
            hold["left"] -= command.amount_microcents
            hold["drawn"] += command.amount_microcents
            self._charge(account, hold, command.amount_microcents)
            self.charges[command.hold_id, command.reference] = [command.amount_microcents]
        return reasons

    def _settle(self, command: SettleHold, account: Any, at: datetime, now: datetime) -> set[str]:
        hold, reasons = self._open_hold(command)
        if reasons == {"HoldAlreadyEnded"} and hold["has_expired"] and hold["key"] == command.key_id:
            reasons = set()
        reasons = reasons or _unless(_is_bookable(command.amount_microcents), "InvalidAmount")
        if not reasons:
            set_aside = hold["left"] if hold["is_open"] else 0
            shares = account["grants"].charge(
                command.amount_microcents, placed_at=hold["placed_at"], set_aside=set_aside
            )
            self.paid_by_grants[command.hold_id, None] = shares
            hold["is_open"] = False
            self._charge(account, hold, command.amount_microcents)
            self.charges[command.hold_id, None] = [command.amount_microcents]
        return reasons

    def _rerate(self, command: RerateCharge, account: Any, at: datetime, now: datetime) -> set[str]:
        reasons = _unless(account, "AccountUnknown") | _unless(_is_bookable(command.amount_microcents), "InvalidAmount")
        hold = self.holds.get(command.hold_id, {"account": None, "key": None})
        amounts = self.charges.get((command.hold_id, command.reference), [])
        is_next = len(amounts) == command.ordinal and command.ordinal > 0
        if not is_next or (hold["account"], hold["key"]) != (command.stream_id, command.key_id):
            return reasons | {"ChargeUnknown"}
        more = command.amount_microcents - amounts[-1]
        if more > 0 and more > self.available(command.stream_id):
            reasons |= {"InsufficientFunds"}
        if not reasons:
            shares = self.paid_by_grants[command.hold_id, command.reference]
            for grant_id, share in account["grants"].charge(max(more, 0)).items():
                shares[grant_id] = shares.get(grant_id, 0) + share
            from_paid = amounts[-1] - sum(shares.values())
            account["grants"].give_back(shares, max(-more - from_paid, 0) if more < 0 else 0, at)
            amounts.append(command.amount_microcents)
            self._charge(account, hold, more)
        return reasons

    def _end(self, command: VoidHold | ExpireHold, account: Any, at: datetime, now: datetime) -> set[str]:
        hold, reasons = self._open_hold(command)
        if not reasons and isinstance(command, ExpireHold) and command.overdue_at is not None:
            reasons = _unless(hold["expires_at"] < command.overdue_at, "HoldNotOverdue")
        if not reasons:
            hold["is_open"] = False
            hold["has_expired"] = isinstance(command, ExpireHold)
        return reasons

    def _record_price(self, command: RecordPriceEvent, account: Any, at: datetime, now: datetime) -> set[str]:
        if account is None:
            self.accounts[PRICE_BOOK] = {
                "currency": "XXX", "credited": 0, "spent": 0, "seq": 0, "at": at,
                "plan": None, "automatic": None, "grants": ModelOfGrants(),
            }  # fmt: skip
        return set()

    # --- rules that several commands share

    def _charge(self, account: dict[str, Any], hold: dict[str, Any], amount: int) -> None:
        account["spent"] += amount
        if hold["key"] is not None:
            spent = self.keys[hold["key"]]["spent"]
            spent[hold["month"]] = spent.get(hold["month"], 0) + amount

    def _open_hold(self, command: Any) -> tuple[dict[str, Any], set[str]]:
        hold = self.holds.get(command.hold_id)
        if hold is None or hold["account"] != command.stream_id:
            return {}, {"HoldUnknown"}
        return hold, _unless(hold["is_open"], "HoldAlreadyEnded")

    def _reasons_against_key(self, key_id: str, account_id: str) -> set[str]:
        key = self.keys.get(key_id)
        if key is None or key["account"] != account_id:
            return {"KeyUnknown", "AccountUnknown"} if account_id not in self.accounts else {"KeyUnknown"}
        return _unless(key["is_active"], "KeyInactive")

    def _reasons_against_budget(self, key_id: str, month: str, amount: int) -> set[str]:
        budget = self.keys[key_id]["budget"]
        fits = budget is None or amount == 0 or sum(self.month_sums(key_id, month)) + amount <= budget
        return _unless(fits, "BudgetExceeded")


def _level(key: dict[str, Any], now: datetime) -> Fraction:
    """How many requests of the key's minute are still used up: a bucket that leaks ``rpm`` requests a minute.

    A level of more than two minutes can only come from a clock that was stepped back; then one request is let in.
    """
    if key["measured_at"] is None:
        return Fraction(0)
    elapsed = Fraction((now - key["measured_at"]) // timedelta(microseconds=1), 60_000_000)
    level = max(key["level"] - elapsed * key["rpm"], Fraction(0))
    return Fraction(key["rpm"] - 1) if level > 2 * key["rpm"] else level


def _month(at: datetime) -> str:
    at = at.astimezone(UTC)
    return f"{at.year:04d}-{at.month:02d}"


def _is_bookable(amount: int) -> bool:
    return 0 <= amount <= LARGEST_AMOUNT


def _unless(holds: object, reason: str) -> set[str]:
    return set() if holds else {reason}


def _names_of(command: Any) -> list[tuple[str, str]]:
    """Under which names a command is remembered. An extension is not: it says a total, so saying it twice adds once."""
    match command:
        case OpenAccount():
            return [(command.stream_id, "opened")]
        case (
            GrantCredit()
            | AdjustBalance()
            | AssignDepositAddress()
            | ChangePlan()
            | ChangeAutomaticTopup()
            | RecordPriceEvent()
        ):
            return [(command.stream_id, f"{type(command).__name__} {command.idempotency_key}")]
        case CreateKey() | DeleteKey():
            return [(command.stream_id, f"{type(command).__name__} {command.key_id}")]
        case PlaceHold():
            return [("", f"placed {command.hold_id}")]  # whoever placed it
        case DrawHold():
            return [(command.stream_id, f"drawn {command.hold_id} {command.reference}")]
        case RerateCharge():
            charge = f"{command.hold_id} {command.reference}"
            return [(command.stream_id, f"rerated {charge} {command.ordinal}")]
        case SettleHold():
            return [(command.stream_id, f"settled {command.hold_id}"), (command.stream_id, f"ended {command.hold_id}")]
        case VoidHold() | ExpireHold():
            return [(command.stream_id, f"ended {command.hold_id}")]
        case RequestTopup():
            return [(command.stream_id, f"requested {command.idempotency_key}")]
        case MarkTopupPending():
            return [(command.stream_id, f"pending {command.topup_id} {command.reference}")]
        case CreditTopup() | FailTopup() | ExpireTopup():
            return [(command.stream_id, f"{type(command).__name__} {command.topup_id}")]
        case ReverseTopup() | ReinstateTopup():
            said = f"{type(command).__name__} {command.kind} {command.total_microcents} {command.reason}"
            return [(command.stream_id, f"{said} {command.topup_id}")]
        case _:
            return []


def _said_by(command: Any) -> Any:
    """What has to be the same for a command to be the same again."""
    match command:
        case SettleHold():
            return "settled", command.amount_microcents, command.usage
        case VoidHold() | ExpireHold() | FailTopup():
            return type(command).__name__
        case _:
            return command


def _mismatch_of(command: Any) -> str:
    if isinstance(command, CreditTopup):
        return "TopupMismatch"
    return "HoldAlreadyEnded" if isinstance(command, SettleHold | VoidHold | ExpireHold) else "IdempotencyMismatch"


TOPUP_COMMANDS = (
    RequestTopup, MarkTopupPending, CreditTopup, ReverseTopup, ReinstateTopup, FailTopup, ExpireTopup,
)  # fmt: skip
_JUDGES: dict[type, Any] = {
    OpenAccount: Model._open,
    GrantCredit: Model._grant,
    ExpireGrant: Model._expire_grant,
    AdjustBalance: Model._adjust,
    AssignDepositAddress: Model._assign_address,
    ChangeAutomaticTopup: Model._change_automatic_topup,
    ChangePlan: Model._change_plan,
    CreateKey: Model._create_key,
    DeleteKey: Model._delete_key,
    PlaceHold: Model._place,
    ExtendHold: Model._extend,
    DrawHold: Model._draw,
    SettleHold: Model._settle,
    RerateCharge: Model._rerate,
    VoidHold: Model._end,
    ExpireHold: Model._end,
    RecordPriceEvent: Model._record_price,
    **dict.fromkeys(TOPUP_COMMANDS, Model._topup),
}
