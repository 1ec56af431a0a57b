"""Booking what a provider did with our money, whoever told of it."""

import asyncio
from collections.abc import Sequence

from ledger import Ledger, Refused
from ledger.providers import ProviderCommand

#: Commands submitted at once: enough to fill groups, and few enough to leave the committer to customers.
AT_ONCE = 200


async def book_provider_events(ledger: Ledger, commands: Sequence[ProviderCommand]) -> list[Refused]:
    """Submit all of them, in order: a payout is initiated before it is paid. Returns what the ledger has against any.

    Raises ledger.LedgerUnavailable or one of ledger.UNREACHABLE; the same again goes on then.
    """
    refusals: list[Refused] = []
    for start in range(0, len(commands), AT_ONCE):
        some = commands[start : start + AT_ONCE]
        for outcome in await asyncio.gather(*map(ledger.submit, some), return_exceptions=True):
            if isinstance(outcome, Refused):
                refusals.append(outcome)
            elif isinstance(outcome, BaseException):
                raise outcome
    return refusals
