"""What of a stream its client got, and how that is known: one class for each ``partial_usage`` of a model."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from inference_proxy.backends import Backend
from inference_proxy.costs import output_tokens
from inference_proxy.holds import RequestHold
from inference_proxy.prepared import Prepared
from inference_proxy.sse import Part
from inference_proxy.transcript import Transcript
from inference_proxy.upstream import Upstream
from inference_proxy.usage import UsageUnreadable
from pricing import Usage

#: From a usage as a backend tells it. Raises UsageUnreadable.
Read = Callable[[Any], Usage]


class Delivered(ABC):
    """Of one stream. ``usage`` and ``last`` are what was counted along, and with which part; None where nothing was."""

    usage: Usage | None = None
    last: Part | None = None

    @abstractmethod
    def add(self, data: bytes, last: Part) -> None:
        """The client got these bytes, which end with this part."""

    @abstractmethod
    async def counted(self, told: Any, outcome: str) -> Usage | None:
        """All that was delivered of a stream that broke off, as its backend counts; None when that is nothing.

        ``told`` is the last usage that it told, ``outcome`` how the stream ended. Raises UsageUnreadable.
        """

    def is_all_of(self, told: Any) -> bool:
        """Nothing is missing of the answer but its end. Then the backend's last word is the better one: it knows what
        part of the prompt was cached."""
        whole = Part(b"", told)
        return self.last is not None and (
            (whole.prompt_tokens, whole.output_tokens) == (self.last.prompt_tokens, self.last.output_tokens)
        )


class CountedAlong(Delivered):
    """``continuous``: the backend counts with every chunk."""

    def __init__(self, hold: RequestHold, backend: Backend, read: Read) -> None:
        self._hold = hold
        self._backend = backend
        self._read = read
        self._is_any = False

    def add(self, data: bytes, last: Part) -> None:
        self._is_any = True
        if not last.output_tokens:
            return
        try:
            usage = self._read(last.usage)
        except UsageUnreadable:  # judged at the end, if that reads no better
            return
        self._hold.progress.delivered(output_tokens(usage))
        if self._hold.delivered(usage, backend=self._backend.name):
            self.usage, self.last = usage, last

    async def counted(self, told: Any, outcome: str) -> Usage | None:
        if self.usage is None and self._is_any and told is None:
            raise UsageUnreadable("the backend does not count along")
        return self.usage


class CountedOnDemand(Delivered):
    """``tokenize``: the backend counts what it is shown of what it said."""

    def __init__(self, prepared: Prepared, upstream: Upstream, backend: Backend, read: Read) -> None:
        self._prepared = prepared
        self._upstream = upstream
        self._backend = backend
        self._read = read
        self._transcript = Transcript()

    def add(self, data: bytes, last: Part) -> None:
        self._transcript.add(data)

    async def counted(self, told: Any, outcome: str) -> Usage | None:
        if not self._transcript.words:
            return None
        return self._read(await self._transcript.counted(self._upstream.pool, self._backend, self._prepared))


class CountedAtTheEnd(Delivered):
    """``drain``: the backend counts once it is through. An event with words in it has a token at least."""

    def __init__(self, prepared: Prepared, read: Read) -> None:
        self._prepared = prepared
        self._read = read
        self._transcript = Transcript()

    def add(self, data: bytes, last: Part) -> None:
        self._transcript.add(data)

    async def counted(self, told: Any, outcome: str) -> Usage | None:
        words = self._transcript.words
        if not words:
            return None
        if told is None and outcome != "backend_failed":  # nobody waits any longer; of the prompt nothing is known
            told = {"prompt_tokens": 0, "completion_tokens": words}
        # What came after the client had gone is not its to pay.
        return {
            name: min(value, words) if name in self._prepared.answer_keys else value
            for name, value in self._read(told).items()
        }


def delivered_of(prepared: Prepared, hold: RequestHold, upstream: Upstream, backend: Backend, read: Read) -> Delivered:
    """How the model of this request says it."""
    match prepared.partial_usage:
        case "continuous":
            return CountedAlong(hold, backend, read)
        case "tokenize":
            return CountedOnDemand(prepared, upstream, backend, read)
        case "drain":
            return CountedAtTheEnd(prepared, read)
