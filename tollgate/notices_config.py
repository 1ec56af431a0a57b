"""From settings to where notices may be sent, and what a process needs to send them."""

from notices import CourierConfig, Targets
from tollgate.settings import Settings


def notice_targets(settings: Settings) -> Targets:
    return Targets(allow_http=settings.notices.allow_http, allow_private=settings.notices.allow_private_targets)


def courier_config(settings: Settings, secret: bytes) -> CourierConfig:
    """``secret`` is the server's."""
    return CourierConfig(server_secret=secret, targets=notice_targets(settings))
