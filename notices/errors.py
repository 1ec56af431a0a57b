"""What this room raises.

NoticesError
├── EndpointNotFound     the account has no such endpoint
├── TooManyEndpoints     the account has as many as it may
├── EndpointDisabled     nothing is sent to it until it is enabled
├── NoticeNotFound       no such notice was made for the endpoint, or it is forgotten by now
├── TargetRefused        a URL that nothing is sent to: not https, not a host, or not on the public internet
└── SecretUnreadable     a signing secret that was sealed under another TOLLGATE_SECRET
"""


class NoticesError(Exception):
    """Root of what this room raises by itself. Nothing was written."""


class EndpointNotFound(NoticesError):
    """The account has no such endpoint, or it was deleted."""

    def __init__(self, endpoint_id: str) -> None:
        super().__init__(f"there is no webhook endpoint {endpoint_id}")
        self.endpoint_id = endpoint_id


class TooManyEndpoints(NoticesError):
    """One has to be deleted before there is another."""

    def __init__(self, at_most: int) -> None:
        super().__init__(f"an account has at most {at_most} webhook endpoints; delete one first")
        self.at_most = at_most


class EndpointDisabled(NoticesError):
    """Somebody disabled it, or its receiver said Gone or nothing but errors for days."""

    def __init__(self, endpoint_id: str, reason: str) -> None:
        super().__init__(f"webhook endpoint {endpoint_id} is disabled: {reason}")
        self.endpoint_id = endpoint_id


class NoticeNotFound(NoticesError):
    """No such notice was made for the endpoint, or it is forgotten by now."""

    def __init__(self, notice_id: str) -> None:
        super().__init__(f"there is no notice {notice_id}")
        self.notice_id = notice_id


class TargetRefused(NoticesError):
    """The message says what is wrong with the URL, and names no address: whom a host name means inside is our own
    affair."""


class SecretUnreadable(NoticesError):
    """Rotating the endpoint's secret makes one that can be read."""

    def __init__(self) -> None:
        super().__init__("the signing secret was sealed under another TOLLGATE_SECRET; rotate it")
