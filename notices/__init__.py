"""What accounts are told by signed webhooks: of their top-ups, of credit that expired, and of a balance that runs low.

``making.py`` follows the log and writes what there is to tell into the outbox, each of it once; ``courier.py`` delivers
it, at least once. Endpoints are where it goes, ``targets.py`` where it may go at all, and ``signing.py`` what it is
signed with. Start reading at ``contents.py``, which says what a notice says.
"""

from notices.courier import Courier, CourierConfig, open_courier
from notices.endpoints import Endpoint, Endpoints
from notices.errors import (
    EndpointDisabled,
    EndpointNotFound,
    NoticeNotFound,
    NoticesError,
    SecretUnreadable,
    TargetRefused,
    TooManyEndpoints,
)
from notices.making import NoticeMaker
from notices.metrics import OLDEST, WAITING
from notices.outbox import KEPT_FOR, Outbox
from notices.routes import notice_routes
from notices.signing import SigningSecrets
from notices.targets import Targets

__all__ = [
    "KEPT_FOR",
    "OLDEST",
    "WAITING",
    "Courier",
    "CourierConfig",
    "Endpoint",
    "EndpointDisabled",
    "EndpointNotFound",
    "Endpoints",
    "NoticeMaker",
    "NoticeNotFound",
    "NoticesError",
    "Outbox",
    "SecretUnreadable",
    "SigningSecrets",
    "TargetRefused",
    "Targets",
    "TooManyEndpoints",
    "notice_routes",
    "open_courier",
]
