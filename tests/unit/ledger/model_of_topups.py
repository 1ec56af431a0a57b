"""The top-ups of the simple books: plain dicts, written from the design and not from the code."""

from typing import Any

from ledger import CreditTopup, ExpireTopup, FailTopup, MarkTopupPending, ReinstateTopup, RequestTopup, ReverseTopup

LARGEST_AMOUNT = (2**63 - 1) // 10
Place = tuple[str, int]


class ModelOfTopups:
    """What every top-up must be after the commands judged so far."""

    def __init__(self) -> None:
        self.by_id: dict[str, dict[str, Any]] = {}
        self.paid_for: dict[tuple[str, str], str] = {}  # top-ups by provider and payment

    def place_of_what_is_reached(self, command: Any) -> Place | None:
        """Where the last event of a top-up stands that is as the command wants to have it."""
        topup = self.by_id.get(getattr(command, "topup_id", ""))
        if topup is None or topup["account"] != command.stream_id or topup["status"] != "credited":
            return None
        match command:
            case ReverseTopup():
                is_reached = 0 <= command.total_microcents <= topup["taken"][command.kind]
            case ReinstateTopup():
                is_reached = topup["taken"][command.kind] <= command.total_microcents <= topup["amount"]
            case _:
                is_reached = False
        return topup["last"] if is_reached else None

    def judge(self, command: Any) -> tuple[set[str], int]:
        """The reasons against the command, or none and what it credits."""
        if isinstance(command, RequestTopup):
            return self._request(command), 0
        topup = self.by_id.get(command.topup_id)
        if topup is None or topup["account"] != command.stream_id:
            return {"TopupUnknown"}, 0
        match command:
            case CreditTopup():
                return self._credit(command, topup)
            case ReverseTopup() | ReinstateTopup():
                return self._take_back(command, topup)
        if topup["status"] not in ("requested", "pending"):
            return {"TopupOver"}, 0
        match command:
            case MarkTopupPending():
                topup["status"], topup["reference"] = "pending", command.reference
            case FailTopup():
                topup["status"] = "failed"
            case ExpireTopup():
                topup["status"] = "expired"
        return set(), 0

    def _request(self, command: RequestTopup) -> set[str]:
        reasons = set()
        if not 0 < command.amount_microcents <= LARGEST_AMOUNT or command.asked.amount <= 0:
            reasons |= {"InvalidAmount"}
        if command.topup_id in self.by_id:
            reasons |= {"IdempotencyMismatch"}
        if not reasons:
            self.by_id[command.topup_id] = {
                "account": command.stream_id,
                "status": "requested",
                "amount": command.amount_microcents,
                "asked": (command.provider, command.asked),
                "reference": None,
                "payment": None,
                "taken": {"refund": 0, "dispute": 0, "reorganisation": 0},
            }
        return reasons

    def _credit(self, command: CreditTopup, topup: dict[str, Any]) -> tuple[set[str], int]:
        payment = (command.provider, command.payment_id)
        is_as_asked = (command.provider, command.paid) == topup["asked"]
        if topup["status"] == "credited" or not is_as_asked or payment in self.paid_for:
            return {"TopupMismatch"}, 0
        topup["status"], topup["payment"] = "credited", command.payment_id
        self.paid_for[payment] = command.topup_id
        return set(), topup["amount"]

    def _take_back(self, command: ReverseTopup | ReinstateTopup, topup: dict[str, Any]) -> tuple[set[str], int]:
        total, taken = command.total_microcents, topup["taken"]
        reasons = set() if topup["status"] == "credited" else {"TopupNotCredited"}
        if not 0 <= total <= LARGEST_AMOUNT:
            reasons |= {"InvalidAmount"}
        if isinstance(command, ReinstateTopup) and total > topup["amount"]:
            reasons |= {"InvalidAmount"}  # more than there was to take back
        elif sum(taken.values()) - taken[command.kind] + total > topup["amount"]:
            reasons |= {"TopupMismatch"}
        if reasons:
            return reasons, 0
        before, taken[command.kind] = taken[command.kind], total
        return set(), before - total
