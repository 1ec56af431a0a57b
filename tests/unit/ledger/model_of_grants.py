"""The credit grants of the simple books: plain dicts, written from the design and not from the code.

Which holds may still take what expired is read off the open holds each time, where the ledger keeps it in the grants.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

NEVER = datetime.max.replace(tzinfo=UTC)
MOST = 64

Shares = dict[str, int]
Hold = dict[str, Any]


class ModelOfGrants:
    """The grants of one account."""

    def __init__(self) -> None:
        self.by_id: dict[str, dict[str, Any]] = {}  # used up ones too
        self.queued = 0

    def grant(self, grant_id: str, amount: int, priority: int, expires_at: datetime | None) -> None:
        self.by_id[grant_id] = {
            "left": amount, "lapsed": 0, "priority": priority, "expires": expires_at or NEVER, "has_expired": False,
            "turn": self._next_turn(),
        }  # fmt: skip

    def open(self) -> dict[str, dict[str, Any]]:
        """By id, in the order in which charges take from them."""
        found = {i: g for i, g in self.by_id.items() if g["left"] or g["lapsed"]}
        return dict(sorted(found.items(), key=lambda item: _place_in_queue(item[1])))

    def lapsed(self) -> int:
        return sum(grant["lapsed"] for grant in self.by_id.values())

    def left(self) -> int:
        return sum(grant["left"] for grant in self.by_id.values())

    def pass_time(self, at: datetime, holds: Iterable[Hold]) -> None:
        """What is held leans on the grants from the first to the last; what expires and is not leant on lapses."""
        room = sum(hold["left"] for hold in holds)
        for grant in self.open().values():
            leant_on = min(grant["left"], room)
            room -= leant_on
            if grant["expires"] <= at and not grant["has_expired"]:
                grant["has_expired"] = True
                grant["lapsed"] += grant["left"] - leant_on
                grant["left"] = leant_on

    def lapse_what_no_hold_needs(self, holds: Iterable[Hold]) -> None:
        """Holds of before an expiry can take what expired; what is more than they hold lapses."""
        holds, leant_on = list(holds), 0
        for grant in self.open().values():
            if grant["has_expired"]:
                held = sum(hold["left"] for hold in holds if hold["placed_at"] < grant["expires"])
                needed = min(grant["left"], max(held - leant_on, 0))
                grant["lapsed"] += grant["left"] - needed
                grant["left"] = needed
                leant_on += needed

    def charge(self, amount: int, *, placed_at: datetime = NEVER, set_aside: int = 0) -> Shares:
        """What a charge takes of each: of expired ones only what its hold had set aside before."""
        shares: Shares = {}
        set_aside = min(set_aside, amount)
        for grant_id, grant in self.open().items():
            part = min(grant["left"], amount)
            if grant["has_expired"]:
                part = min(part, set_aside) if placed_at < grant["expires"] else 0
                set_aside -= part
            grant["left"] -= part
            amount -= part
            if part:
                shares[grant_id] = part
        return shares

    def give_back(self, shares: Shares, amount: int, at: datetime) -> None:
        """The last first, out of the shares of a charge."""
        for grant_id in reversed(list(shares)):
            part = min(shares[grant_id], amount)
            shares[grant_id] -= part
            amount -= part
            if part:
                self._give_back_to(self.by_id[grant_id], part, at)
        for grant_id in [grant_id for grant_id, share in shares.items() if not share]:
            del shares[grant_id]

    def expire(self, grant_id: str) -> int:
        """What is taken off the books."""
        lapsed: int = self.by_id[grant_id]["lapsed"] if grant_id in self.by_id else 0
        if lapsed:
            self.by_id[grant_id]["lapsed"] = 0
        return lapsed

    def _give_back_to(self, grant: dict[str, Any], amount: int, at: datetime) -> None:
        if not grant["left"] and not grant["lapsed"]:  # it had gone, and comes back behind its like
            grant["turn"] = self._next_turn()
            grant["has_expired"] = grant["expires"] <= at
        grant["lapsed" if grant["has_expired"] else "left"] += amount

    def _next_turn(self) -> int:
        self.queued += 1
        return self.queued


def _place_in_queue(grant: dict[str, Any]) -> tuple[Any, ...]:
    by_terms = (grant["priority"], grant["expires"])
    return not grant["has_expired"], by_terms[:: -1 if grant["has_expired"] else 1], grant["turn"]
