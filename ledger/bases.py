"""What all events share, and what all commands share."""

import msgspec


class EventBase(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """The tag ``type``. When it happened is the stored event's ``at``."""


class CommandBase(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """Whose stream it is for. Defaults are left out of the encoding, so that a new optional field does not change the
    hash of old requests."""

    stream_id: str  # the account's id, PRICE_BOOK, or a payment provider's
