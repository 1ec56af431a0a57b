"""What an answer says of its own cost."""

from ledger import Committed, cents_text
from ledger.events import HoldSettled, HoldSettledLate
from ledger.money import ZERO
from pricing import Usage


def cost_headers(committed: Committed | None) -> dict[str, str]:
    """The charge and the posted balance after it, in cents; nothing while the end of the hold is not committed."""
    if committed is None:
        return {}
    event = committed.stored.event
    charged = event.amount_microcents if isinstance(event, HoldSettled | HoldSettledLate) else ZERO
    return {
        "x-tollgate-cost-cents": cents_text(charged),
        "x-tollgate-balance-cents": cents_text(committed.account.posted),
    }


def output_tokens(usage: Usage) -> int:
    """The length of the answer; 0 for an operation whose answers have no tokens."""
    count = usage.get("output_tokens", 0)
    assert type(count) is int  # every operation reads it so
    return count


def has_output(usage: Usage) -> bool:
    """Whether there is anything to pay for: an answer of no token is none."""
    return usage.get("output_tokens") != 0
