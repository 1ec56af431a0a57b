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


def readable(text: str) -> str:
    """The text as it can be stored: what Postgres takes for none (NUL, halves of characters) is written out."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")


async def book(ledger: Ledger, command: TopupCommand) -> None:
    """Submit what a provider told. Raises Break when the books refuse it, and ledger.LedgerUnavailable."""
    try:
        await ledger.submit(command)
    except Refused as refused:
        raise Break(type(refused).__name__, str(refused)) from refused
