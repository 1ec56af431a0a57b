"""What asking nodes raises: leaves of payments.errors.ProviderUnavailable, because asking again later is right."""

from payments.errors import ProviderUnavailable
from payments.usdc.config import PROVIDER


class NodeFailed(ProviderUnavailable):
    """A node does not answer, or answers what cannot be. ``reason`` is one word, for counting."""

    def __init__(self, node: str, reason: str, problem: str) -> None:
        super().__init__(PROVIDER, f"{node}: {problem}")
        self.node = node
        self.reason = reason


class RangeRefused(NodeFailed):
    """The node does not want to look through so many blocks; perhaps through fewer."""


class NodesDisagree(ProviderUnavailable):
    """Not as many nodes as have to say the same do. Nothing may be booked on it."""

    def __init__(self, chain: str, problem: str) -> None:
        super().__init__(PROVIDER, f"{chain}: {problem}")
