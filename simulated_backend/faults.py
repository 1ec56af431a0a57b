"""How a backend can misbehave, and who asked for it: the command line, a test at run time, or one request's header.

All three speak the same language, ``key=value`` with the fields of ``Faults``; the closer to the request, the
stronger::

    python -m simulated_backend --simulate usage=missing,tokens=5
    POST /_simulator/faults  {"status": 503, "times": 2}
    x-simulate: close_after=3
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

UsageShape = Literal[
    "normal",
    "missing",
    "null",
    "with_finish",  # on the chunk that carries finish_reason, and in no chunk of its own
    "with_last_token",  # on the chunk of the last token, before finish_reason, and in no chunk of its own
    "every_chunk",  # cumulative on every chunk although nobody asked for that
    "final_only",  # at the end only, although continuous_usage_stats was asked for
    "twice",  # the usage chunk is sent two times
    "after_done",  # the usage chunk comes after [DONE]
    "negative",
    "strings",
    "cached_above_prompt",
    "no_cached_details",  # prompt_tokens_details is null
    "other_model",  # the answer names a model that nobody asked for
]

#: An answer of ten million tokens is 60 MB; more would only fill our own memory.
Tokens = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0)]


class Cut(NamedTuple):
    """An early end of an answer, after so many tokens over all its choices."""

    kind: str
    after: int


class Faults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The wishes that hold for one request; all defaults together are a healthy backend."""

    status: Annotated[int, msgspec.Meta(ge=400, le=599)] | None = None  # refuse with it, before any work
    retry_after: Annotated[int, msgspec.Meta(ge=0)] | None = None  # seconds, sent with ``status``
    hang: Annotated[float, msgspec.Meta(ge=0)] = 0.0  # seconds of silence before the headers
    close_before_headers: bool = False
    close_after: Tokens | None = None  # close the connection after so many tokens
    silent_after: Tokens | None = None  # send nothing more after so many tokens, but stay connected
    error_after: Tokens | None = None  # an error event after so many tokens; a plain answer becomes a 500
    token_latency_ms: Milliseconds | None = None
    first_token_latency_ms: Milliseconds | None = None
    usage: UsageShape = "normal"
    body: Literal["normal", "malformed", "wrong_length"] = "normal"  # broken JSON; an end before the announced one
    stream_interval: Annotated[int, msgspec.Meta(ge=1)] = 1  # tokens in each event after the first one
    tokens: Tokens | None = None  # the natural length of each choice; max_tokens still cuts it
    overrun: Tokens | None = None  # the length of each choice whatever max_tokens and the context say
    cached: Tokens | None = None  # reported and recorded as cached, up to the prompt's length
    tokenize_status: Annotated[int, msgspec.Meta(ge=400, le=599)] | None = None  # refuse POST /tokenize with it
    tokenize_hang: Annotated[float, msgspec.Meta(ge=0)] = 0.0  # seconds of silence of POST /tokenize
    health: Literal["up", "down", "hang"] = "up"  # of GET /health only
    every: Annotated[int, msgspec.Meta(ge=1)] = 1  # only each so-manieth request is touched
    times: Annotated[int, msgspec.Meta(ge=0)] | None = None  # only so many requests, then healthy again

    def cut(self) -> Cut | None:
        """The wished-for early end of the answer; the first one named here when several are wished for."""
        for kind, after in (("close", self.close_after), ("silence", self.silent_after), ("error", self.error_after)):
            if after is not None:
                return Cut(kind, after)
        return None


HEALTHY = Faults()


class BadWish(ValueError):
    """A fault that does not exist or a value it cannot have. The message names it."""


def parse_wishes(text: str) -> dict[str, str]:
    """The wishes in ``key=value,key=value``; not yet checked. Raises ``BadWish`` for anything else."""
    wishes = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, separator, value = part.partition("=")
        if not separator:
            raise BadWish(f"{part!r} is not of the form key=value")
        wishes[key.strip()] = value.strip()
    return wishes


class FaultBoard:
    """The wishes that stand for all requests, and the count of requests they have touched."""

    def __init__(self, from_flags: Mapping[str, Any]) -> None:
        self._from_flags = dict(from_flags)
        self._standing = HEALTHY
        self._seen = 0
        self._touched = 0
        self.replace({})

    def replace(self, wishes: Mapping[str, Any]) -> Faults:
        """Make these the run-time wishes instead of the earlier ones; those of the command line stay under them."""
        self._standing = _faults({**self._from_flags, **wishes})
        self._at_run_time = dict(wishes)
        self._seen = self._touched = 0
        return self._standing

    @property
    def standing(self) -> Faults:
        """What holds for a request without wishes of its own."""
        return self._standing

    def for_request(self, header: str | None) -> Faults:
        """What holds for the next request. Raises ``BadWish`` for a header that makes no sense."""
        standing = self._standing
        if standing is HEALTHY and header is None:
            return standing
        touched = self._counts(standing)
        if header is None:
            return standing if touched else HEALTHY
        base = {**self._from_flags, **self._at_run_time} if touched else {}
        return _faults({**base, **parse_wishes(header)})

    def uncounted(self, header: str | None) -> Faults:
        """What holds for a request that ``every`` and ``times`` do not count. Raises ``BadWish`` as ``for_request``."""
        if header is None:
            return self._standing
        return _faults({**self._from_flags, **self._at_run_time, **parse_wishes(header)})

    def _counts(self, standing: Faults) -> bool:
        self._seen += 1
        if self._seen % standing.every or (standing.times is not None and self._touched >= standing.times):
            return False
        self._touched += 1
        return True


def _faults(wishes: Mapping[str, Any]) -> Faults:
    try:
        faults = msgspec.convert(wishes, Faults, strict=False)
    except msgspec.ValidationError as error:
        raise BadWish(str(error)) from error
    return HEALTHY if faults == HEALTHY else faults
