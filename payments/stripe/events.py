"""What Stripe tells: an event around the object that it is about, as the object was then."""

from typing import Annotated, TypeVar

import msgspec

from payments.errors import Break, WebhookRefused
from payments.stripe.api import Id

#: Of a body; Stripe's own are a few kilobytes.
MAX_BODY = 256 * 1024

Subject = TypeVar("Subject")


class EventHead(msgspec.Struct, frozen=True):
    """What every event has."""

    id: Id
    type: Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"^[!-~]+$(?!\n)")]


class _Data(msgspec.Struct, frozen=True):
    object: msgspec.Raw


class _Event(EventHead, frozen=True):
    data: _Data


def read_head(body: bytes) -> EventHead:
    """Raises WebhookRefused for what is no event."""
    try:
        return msgspec.json.decode(body, type=EventHead)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WebhookRefused("unreadable", f"the body is no event: {error}") from error


def read_subject(body: bytes, kind: type[Subject]) -> Subject:
    """The object that an event is about. Raises Break when it is not of this kind."""
    try:
        return msgspec.json.decode(msgspec.json.decode(body, type=_Event).data.object, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Break("unreadable", f"its object cannot be read: {error}") from error
