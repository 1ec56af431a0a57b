"""Who may do what: users, sessions, API keys, service tokens and roles, and the operators' hand on an account.

Personal data and credentials stand in our own tables, so that they can be erased and revoked; accounts, keys and
their limits are events of the ledger, and a key without its event is dead whatever stands in a table. Start reading
at ``authentication.py``, which every request passes; each noun has a module of commands and one of routes.
"""

from accounts.authentication import Authenticator
from accounts.errors import (
    AccountNotFound,
    AccountsError,
    EmailTaken,
    IdempotencyKeyReused,
    KeyNotFound,
    ServiceTokenNotFound,
    TooBusy,
    WrongCredentials,
)
from accounts.keys import Keys, NamedKey, NewKey
from accounts.operators import Operators, account_of, open_account
from accounts.passwords import Passwords
from accounts.principals import Principal, Role, require_account, require_role, require_whole_account
from accounts.routes import account_routes
from accounts.service_tokens import NewServiceToken, ServiceToken, ServiceTokens
from accounts.tokens import Tokens
from accounts.users import User, Users

__all__ = [
    "AccountNotFound",
    "AccountsError",
    "Authenticator",
    "EmailTaken",
    "IdempotencyKeyReused",
    "KeyNotFound",
    "Keys",
    "NamedKey",
    "NewKey",
    "NewServiceToken",
    "Operators",
    "Passwords",
    "Principal",
    "Role",
    "ServiceToken",
    "ServiceTokenNotFound",
    "ServiceTokens",
    "Tokens",
    "TooBusy",
    "User",
    "Users",
    "WrongCredentials",
    "account_of",
    "account_routes",
    "open_account",
    "require_account",
    "require_role",
    "require_whole_account",
]
