"""What accounts are told by signed webhooks: of their top-ups, and of a balance that runs low.

Endpoints are where it goes, ``targets.py`` where it may go at all, and ``signing.py`` what it is signed with. Start
reading at ``endpoints.py``.
"""

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
from notices.routes import EndpointRoutes
from notices.signing import SigningSecrets
from notices.targets import Targets

__all__ = [
    "Endpoint",
    "EndpointDisabled",
    "EndpointNotFound",
    "EndpointRoutes",
    "Endpoints",
    "NoticeNotFound",
    "NoticesError",
    "SecretUnreadable",
    "SigningSecrets",
    "TargetRefused",
    "Targets",
    "TooManyEndpoints",
]
