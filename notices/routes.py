"""All routes of this room."""

from collections.abc import Callable
from datetime import datetime

from accounts import Authenticator
from ledger import Ledger
from notices.delivery_routes import DeliveryRoutes
from notices.endpoint_routes import EndpointRoutes
from notices.endpoints import Endpoints
from notices.low_balance import LowBalanceRoutes
from notices.outbox import Outbox
from notices.permission import Permission
from notices.signing import SigningSecrets
from notices.targets import Targets
from wire import Route


def notice_routes(
    ledger: Ledger,
    *,
    secrets: SigningSecrets,
    targets: Targets,
    authenticator: Authenticator,
    clock: Callable[[], datetime],
) -> list[Route]:
    """Endpoints, what is sent to them, and when a balance is low."""
    endpoints = Endpoints(ledger, secrets, targets, clock=clock)
    permission = Permission(ledger, authenticator)
    return [
        *EndpointRoutes(endpoints, permission).routes(),
        *DeliveryRoutes(endpoints, Outbox(ledger), permission, clock=clock).routes(),
        *LowBalanceRoutes(ledger, permission).routes(),
    ]
