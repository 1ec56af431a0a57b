"""What came of a notification, and how its commands are submitted."""

from typing import Literal

import msgspec

from ledger import Ledger, Refused
from ledger.commands import TopupCommand
from payments.errors import Break


class Outcome(msgspec.Struct, frozen=True):
    """What came of a notification, for people to read."""

    status: Literal["processed", "ignored"]
    text: str


async def book(ledger: Ledger, command: TopupCommand) -> None:
    """Submit what a provider told. Raises Break when the books refuse it, and ledger.LedgerUnavailable."""
    try:
        await ledger.submit(command)
    except Refused as refused:
        raise Break(type(refused).__name__, str(refused)) from refused
