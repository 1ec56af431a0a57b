"""What an operation makes of a request."""

import msgspec

from pricing import UsageBox


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A request that may be forwarded: bounded, and with its limits written into the body that the backend gets."""

    model: str
    body: bytes  # as forwarded
    box: UsageBox  # every usage that the request can have
    answer_keys: tuple[str, ...] = ()  # of the box: what the length of the answer bounds
    stream: bool = False
    wants_usage: bool = False  # the client asked for a usage chunk at the end of the stream
    wants_all_usage: bool = False  # the client asked for usage on every chunk
    max_output_tokens: int | None = None  # of one answer, as forwarded
    answers: int = 1  # how many answers the request asks for
