"""The beginning and the end of a credit grant. Pure; what happens in between is ``ledger.grants``."""

from datetime import UTC, datetime

from ledger.amounts import positive
from ledger.commands import ExpireGrant, GrantCredit
from ledger.errors import GrantNotExpired, InvalidGrant, TooManyGrants
from ledger.events import LAST_PRIORITY, CreditGranted, GrantExpired
from ledger.grants import MAX_OPEN_GRANTS, grant_id_of
from ledger.state import AccountState


def new_grant(account: AccountState, command: GrantCredit, at: datetime) -> CreditGranted:
    """The grant that the command asks for. Raises InvalidAmount, InvalidGrant, TooManyGrants."""
    if command.expires_at is not None and command.expires_at <= at:
        raise InvalidGrant(f"it would have expired at {command.expires_at}")
    if type(command.priority) is not int or not 0 <= command.priority <= LAST_PRIORITY:
        raise InvalidGrant(f"a priority is a whole number from 0 to {LAST_PRIORITY}")
    if len(account.grants) >= MAX_OPEN_GRANTS:
        raise TooManyGrants(account.account_id, MAX_OPEN_GRANTS)
    return CreditGranted(
        amount_microcents=positive(command.amount_microcents),
        reason=command.reason,
        granted_by=command.granted_by,
        grant_id=grant_id_of(account.account_id, command.idempotency_key),
        expires_at=None if command.expires_at is None else command.expires_at.astimezone(UTC),
        priority=command.priority,
    )


def expiry_of_grant(account: AccountState, command: ExpireGrant) -> GrantExpired:
    """What is to be taken off the books, of an account as it is now. Raises GrantNotExpired."""
    lapsed = {grant.grant_id: grant.lapsed for grant in account.grants}
    if not lapsed.get(command.grant_id):
        raise GrantNotExpired(command.grant_id)
    return GrantExpired(grant_id=command.grant_id, amount_microcents=lapsed[command.grant_id])
