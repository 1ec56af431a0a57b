"""How Stripe can fail those who call it: what a test posts to ``/_simulator/faults``."""

from typing import Annotated

import msgspec


class Faults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Wishes for the next requests to the API; all defaults together are a healthy Stripe."""

    status: Annotated[int, msgspec.Meta(ge=400, le=599)] | None = None  # refuse with it, before any work
    message: str = "an error that was asked for"
    hang_s: Annotated[float, msgspec.Meta(ge=0, le=600)] = 0.0  # of silence before any work
    stall_s: Annotated[float, msgspec.Meta(ge=0, le=600)] = 0.0  # of silence after the work
    lose_answer: bool = False  # do the work, then close the connection instead of answering
    path: str = ""  # only requests whose path ends so
    times: Annotated[int, msgspec.Meta(ge=0)] | None = None  # only so many requests, then healthy again


class FaultBoard:
    """The wishes that stand, and how many requests they still hold for."""

    def __init__(self) -> None:
        self.standing = Faults()
        self._left: int | None = None

    def replace(self, faults: Faults) -> None:
        self.standing = faults
        self._left = faults.times

    def for_request(self, path: str) -> Faults:
        """What holds for the next request, which is counted if it is one of those that are meant."""
        if self._left == 0 or not path.endswith(self.standing.path):
            return Faults()
        if self._left is None:
            return self.standing
        self._left -= 1
        return self.standing
