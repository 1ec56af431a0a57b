"""The expiry of credit grants, written down: what has lapsed of them is taken off the books.

Nobody waits for it. From its expiry on a grant pays for no new hold, whether this was done or not; it is done so that
the books say it as well. Any number of processes may do it: what has lapsed is taken off once.
"""

import asyncio
from datetime import datetime

import structlog

from ledger.commands import ExpireGrant
from ledger.errors import GrantNotExpired
from ledger.ledger import Ledger
from ledger.reading import accounts_with_expired_grants

#: Accounts at once: enough that one group carries many.
AT_ONCE = 256

_log = structlog.get_logger(__name__)


async def expire_grants(ledger: Ledger, now: datetime) -> int:
    """Take off the books what has lapsed of the grants of all accounts. Returns of how many grants.

    Raises LedgerUnavailable and what a pool raises; the same again goes on with the rest.
    """
    expired, after = 0, ""
    while accounts := await accounts_with_expired_grants(ledger.pool, now, after=after, limit=AT_ONCE):
        after = accounts[-1].account_id
        commands = [
            ExpireGrant(stream_id=account.account_id, grant_id=grant.grant_id)
            for account in accounts
            for grant in account.as_of(now).grants
            if grant.lapsed
        ]
        expired += sum(await asyncio.gather(*[_is_expired(ledger, command) for command in commands]))
    return expired


async def _is_expired(ledger: Ledger, command: ExpireGrant) -> bool:
    try:
        committed = await ledger.submit(command)
    except GrantNotExpired:  # somebody else was first
        return False
    _log.info("grant.expired", account_id=committed.account.account_id, grant_id=command.grant_id)
    return True
