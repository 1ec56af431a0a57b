"""Who asks: a key, a user's session, or an operator's program."""

from typing import Literal

import msgspec

from accounts.tables import answered
from accounts.tokens import Kind
from ledger import Ledger
from wire import ApiError

#: customer: one's own account. finance: every account, reading. admin: granting and adjusting as well.
Role = Literal["customer", "finance", "admin"]


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who a request is from, as proven by its secret."""

    kind: Kind
    id: str  # of the key, the user, or the service token: what events name as the one who did it
    role: Role  # of a key always customer: a key pays for requests, it never carries its user's office
    account_id: str | None  # None: a service token, which has no account
    user_id: str | None  # None: a service token, or a key of an account without this user
    key_id: str | None  # None: not a key


def require_role(principal: Principal, *roles: Role) -> None:
    """Raises ApiError forbidden when the principal has none of these roles."""
    if principal.role not in roles:
        raise ApiError("forbidden", f"this needs the role {' or '.join(roles)}")


def require_account(principal: Principal) -> str:
    """The account that the principal acts for. Raises ApiError forbidden for a service token, which has none."""
    if principal.account_id is None:
        raise ApiError("forbidden", "a service token has no account of its own; use a key or a session")
    return principal.account_id


async def require_whole_account(principal: Principal, ledger: Ledger) -> str:
    """The account, of whoever may change it: who logs in, or has a key without limits.

    A key with a limit could make itself one without, or move the account's money. Raises ApiError forbidden, and
    ledger.LedgerUnavailable.
    """
    account_id = require_account(principal)
    for key in await answered(ledger.keys(account_id)):
        if key.key_id == principal.key_id and (key.rate_limit_rpm, key.monthly_budget) != (None, None):
            raise ApiError("forbidden", "a key with limits cannot change its account; log in")
    return account_id
