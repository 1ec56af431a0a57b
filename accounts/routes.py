"""The operations of this room, as data for the composition root to mount."""

from collections.abc import Callable
from datetime import datetime

from accounts.authentication import Authenticator
from accounts.key_routes import KeyRoutes
from accounts.keys import Keys
from accounts.operator_routes import OperatorRoutes
from accounts.operators import Operators
from accounts.user_routes import UserRoutes
from accounts.users import Users
from ledger import Ledger
from wire import Route


def account_routes(
    ledger: Ledger,
    *,
    users: Users,
    keys: Keys,
    operators: Operators,
    authenticator: Authenticator,
    clock: Callable[[], datetime],
    monotonic: Callable[[], float],
) -> list[Route]:
    """Users, keys and operators. The throttles of logins live as long as the list's handlers: make it once."""
    return [
        *UserRoutes(ledger, users, authenticator, monotonic=monotonic).routes(),
        *KeyRoutes(ledger, keys, authenticator, clock=clock).routes(),
        *OperatorRoutes(ledger, operators, keys, authenticator, clock=clock).routes(),
    ]
