"""A stream of server-sent events on its way through: bytes in, bytes out, and what they say of usage.

No I/O. Events pass as the bytes that they came in, at once; only what we asked for and the client did not is taken
out, and ``[DONE]`` is kept back until the request is settled.
"""

from typing import Any

import msgspec

_USAGE = b'"usage"'
_DONE = b"[DONE]"
_ERROR = b'"error"'
_LAST_FIELD = b',"usage":{'
_NO_CHOICES = b'"choices":[]'
#: An event larger than this without an end is not one that we wait for.
MAX_EVENT = 4 * 1024 * 1024

_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class _Choice(msgspec.Struct):
    index: int = 0
    finish_reason: str | None = None


_decode_choices = msgspec.json.Decoder(list[_Choice]).decode


class EventTooLarge(Exception):
    """The backend sends an event without end."""


class Part(msgspec.Struct, frozen=True):
    """What of a stream goes to the client together."""

    data: bytes
    usage: Any = None  # cumulative, with this part; decoded, not judged. None: the backend has not counted yet
    is_counted: bool = False  # the usage came with this part, and is not that of a part before it
    unfinished: frozenset[int] = frozenset()  # the indexes of the answers that have not said why they ended

    @property
    def prompt_tokens(self) -> int | None:
        """What the usage says of the prompt's length; None where it says nothing that can be."""
        return self._count("prompt_tokens")

    @property
    def output_tokens(self) -> int | None:
        """What the usage says of the answers' length; None where it says nothing that can be."""
        return self._count("completion_tokens")

    def _count(self, name: str) -> int | None:
        count = self.usage.get(name) if isinstance(self.usage, dict) else None
        return count if type(count) is int and count >= 0 else None


class EventStream:
    """Feed it what arrives; it gives back what goes to the client now, part by part.

    Backends are asked to count along (cumulative usage on every chunk), so that a stream that breaks off can be
    charged exactly. A client sees that usage only as it asked for it: on no chunk, on one chunk of its own at the end
    (``wants_usage``), or on all of them (``wants_all_usage``).
    """

    def __init__(self, *, wants_usage: bool, wants_all_usage: bool = False, answers: int = 1) -> None:
        self._has_one_answer = answers == 1
        self._wants_usage = wants_usage
        self._wants_all_usage = wants_all_usage
        self._rest = b""
        self._usage_by_choice: dict[int, Any] = {}
        self._unfinished = frozenset(range(answers))
        self._fields: dict[str, msgspec.Raw] = {}  # of the last chunk that carried usage, but for its choices
        self._usage_event = b""  # the backend's own chunk for usage alone, where it sent one
        self._last_usage: Any = None
        self.usage: Any = None  # as ``Part.usage``; of the whole answer once it is done
        self.is_done = False  # [DONE] has arrived
        self.has_failed = False  # the backend sent an error in place of an answer's end

    def feed(self, data: bytes) -> list[Part]:
        """What of the arrived bytes goes to the client now: whole events only. Raises EventTooLarge."""
        data = self._rest + data if self._rest else data
        end = _last_event_end(data)
        events, self._rest = data[:end], data[end:]
        if len(self._rest) > MAX_EVENT:
            raise EventTooLarge(f"an event of more than {MAX_EVENT} bytes")
        if not events:
            return []
        if not self.is_done and _USAGE not in events and _DONE not in events and _ERROR not in events:
            return [self._as_part(events)]
        return [part for event in _split(events) if (part := self._part(event)) is not None]

    def usage_chunk(self) -> bytes:
        """The one usage chunk for a client that asked for it, wherever the backend sent what it says."""
        if not self._wants_usage or self.usage is None:
            return b""
        return self._usage_event or self.chunk({"choices": [], "usage": self.usage})

    def early_end(self, last: Part, notice: dict[str, Any]) -> bytes:
        """The end of answers that stop after this part: each that had not ended with ``finish_reason`` "length", why,
        and the usage that is charged for a client that asked for it."""
        choices = [{"index": index, "delta": {}, "finish_reason": "length"} for index in sorted(last.unfinished)]
        end = self.chunk({"choices": choices, "tollgate": notice})
        return end + (self.chunk({"choices": [], "usage": last.usage}) if self._wants_usage else b"")

    def chunk(self, fields: dict[str, Any]) -> bytes:
        """A chunk of this stream with these fields."""
        return b"data: " + _encode({**self._fields, **fields}) + b"\n\n"

    def _part(self, event: bytes) -> Part | None:
        """The event as the client gets it. Usage that arrives after [DONE] counts, and is not passed on; an error is
        the backend's own affair, the client gets ours."""
        if self._fields and self._has_one_answer and not self.is_done and (cut := _usage_cut_off(event)) is not None:
            rest, self.usage = cut
            self._last_usage, self._usage_event = self.usage, b""
            return self._as_part(event if self._wants_all_usage else rest, is_counted=True)
        data = _data_of(event)
        if data == _DONE:
            self.is_done = True
            self.usage = self._last_usage
            return None
        if data is None or (_USAGE not in data and _ERROR not in data):
            return None if self.is_done else self._as_part(event)
        try:
            fields = _decode_fields(data)
        except msgspec.DecodeError:
            return self._as_part(event)
        if bytes(fields.get("error", b"null")) != b"null":
            self.has_failed = True
            return None
        usage = fields.pop("usage", None)
        is_usage_alone = bytes(fields.get("choices", b"[]")) == b"[]"
        is_counted = usage is not None and bytes(usage) != b"null"
        if usage is not None and is_counted:
            self._last_usage = msgspec.json.decode(usage)
            self.usage = self._last_usage if self.is_done else self._so_far(fields.get("choices"))
            self._fields = {name: value for name, value in fields.items() if name != "choices"}
            self._usage_event = event if is_usage_alone else b""
        if self.is_done or is_usage_alone:
            return None
        if not self._wants_all_usage and usage is not None:
            event = b"data: " + _encode(fields) + b"\n\n"
        return self._as_part(event, is_counted=is_counted)

    def _as_part(self, data: bytes, *, is_counted: bool = False) -> Part:
        return Part(data, self.usage, is_counted, self._unfinished)

    def _so_far(self, choices: msgspec.Raw | None) -> Any:
        """The usage of all choices up to here. Usage is cumulative and never summed, but for the usage on a chunk of
        one choice of several: until the end it counts that choice only, with the prompt that all of them share."""
        usage = self._last_usage
        told = _told(choices)
        indexes = [choice.index for choice in told]
        self._unfinished -= {choice.index for choice in told if choice.finish_reason is not None}
        count = usage.get("completion_tokens") if isinstance(usage, dict) else None
        if len(indexes) != 1 or type(count) is not int:
            self._usage_by_choice.clear()
            return usage
        self._usage_by_choice[indexes[0]] = count
        if len(self._usage_by_choice) == 1:
            return usage
        others = sum(self._usage_by_choice.values()) - count
        both = {name: usage[name] for name in ("completion_tokens", "total_tokens") if type(usage.get(name)) is int}
        return {**usage, **{name: told + others for name, told in both.items()}}


def _usage_cut_off(event: bytes) -> tuple[bytes, Any] | None:
    """A chunk as vLLM and SGLang write it, with words and then, as its last field, usage: the chunk without it, and the
    usage. None for any other event. Within a text the quotes would be escaped, so this is where a field begins."""
    start = event.rfind(_LAST_FIELD)
    if start < 0 or not event.endswith(b"}}\n\n") or _NO_CHOICES in event or _ERROR in event:
        return None
    try:
        usage = msgspec.json.decode(event[start + len(_LAST_FIELD) - 1 : -3])
    except msgspec.DecodeError:  # the field of a field
        return None
    return event[:start] + b"}\n\n", usage


def _told(choices: msgspec.Raw | None) -> list[_Choice]:
    try:
        return _decode_choices(choices or b"[]")
    except msgspec.DecodeError:  # nothing of this is needed where it does not read like vLLM's
        return []


def _last_event_end(data: bytes) -> int:
    return max(
        data.rfind(b"\n\n") + 2 if b"\n\n" in data else 0, data.rfind(b"\r\n\r\n") + 4 if b"\r\n\r\n" in data else 0
    )


def _split(events: bytes) -> list[bytes]:
    separator = b"\r\n\r\n" if b"\r\n\r\n" in events else b"\n\n"
    return [event + separator for event in events.split(separator) if event]


def _data_of(event: bytes) -> bytes | None:
    """The data of an event of one data line; None for comments and other lines."""
    for line in event.splitlines():
        if line.startswith(b"data:"):
            return line[5:].strip()
    return None
