"""A stream of server-sent events on its way through: bytes in, bytes out, and what they say of usage.

No I/O. Events pass as the bytes that they came in, at once; only what we asked for and the client did not is taken
out, and ``[DONE]`` is kept back until the request is settled.
"""

from typing import Any

import msgspec

_USAGE = b'"usage"'
_DONE = b"[DONE]"
_ERROR = b'"error"'
#: An event larger than this without an end is not one that we wait for.
MAX_EVENT = 4 * 1024 * 1024

_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class _Choice(msgspec.Struct):
    index: int = 0


class _Count(msgspec.Struct):
    completion_tokens: Any = None


_decode_choices = msgspec.json.Decoder(list[_Choice]).decode
_decode_count = msgspec.json.Decoder(_Count).decode


class EventTooLarge(Exception):
    """The backend sends an event without end."""


class EventStream:
    """Feed it what arrives; it gives back what the client gets now.

    Backends are asked to count along (cumulative usage on every chunk), so that a stream that breaks off can be
    charged exactly. A client sees that usage only as it asked for it: on no chunk, on one chunk of its own at the end
    (``wants_usage``), or on all of them (``wants_all_usage``).
    """

    def __init__(self, *, wants_usage: bool, wants_all_usage: bool = False) -> None:
        self._wants_usage = wants_usage
        self._wants_all_usage = wants_all_usage
        self._rest = b""
        self._usage: bytes | None = None
        self._usage_by_choice: dict[int, bytes] = {}
        self._last: dict[str, msgspec.Raw] = {}  # fields of the last chunk that carried usage
        self._usage_event = b""  # the backend's own chunk for usage alone, where it sent one
        self.is_done = False  # [DONE] has arrived
        self.has_content = False  # something of an answer has been passed on
        self.has_failed = False  # the backend sent an error in place of an answer's end

    @property
    def usage(self) -> Any:
        """The last usage that the backend reported, decoded; None when it reported none.

        It is cumulative wherever it appears more than once, and so never summed, but for a stream of several choices
        that broke off: the usage on a chunk counts that chunk's choice only, with the prompt that all of them share.
        """
        if self._usage is None:
            return None
        usage = msgspec.json.decode(self._usage)
        if len(self._usage_by_choice) > 1 and not self.is_done:
            counted = [msgspec.json.decode(each) for each in self._usage_by_choice.values()]
            usage["completion_tokens"] = sum(each["completion_tokens"] for each in counted)
        return usage

    def feed(self, data: bytes) -> bytes:
        """What of the arrived bytes goes to the client now: whole events only."""
        data = self._rest + data if self._rest else data
        end = _last_event_end(data)
        events, self._rest = data[:end], data[end:]
        if len(self._rest) > MAX_EVENT:
            raise EventTooLarge(f"an event of more than {MAX_EVENT} bytes")
        if not events:
            return b""
        if not self.is_done and _USAGE not in events and _DONE not in events and _ERROR not in events:
            self.has_content = True
            return events
        return b"".join([self._pass(event) for event in _split(events)])

    def usage_chunk(self) -> bytes:
        """The one usage chunk for a client that asked for it: what is charged, wherever the backend sent it."""
        if not self._wants_usage or self._usage is None:
            return b""
        if self._usage_event:
            return self._usage_event
        return b"data: " + _encode({**self._last, "choices": [], "usage": msgspec.Raw(self._usage)}) + b"\n\n"

    def _pass(self, event: bytes) -> bytes:
        """The event as the client gets it. Usage that arrives after [DONE] counts, and is not passed on; an error is
        the backend's own affair, the client gets ours."""
        data = _data_of(event)
        if data == _DONE:
            self.is_done = True
            return b""
        if data is None or (_USAGE not in data and _ERROR not in data):
            return b"" if self.is_done else self._pass_content(event)
        try:
            fields = _decode_fields(data)
        except msgspec.DecodeError:
            return self._pass_content(event)
        if bytes(fields.get("error", b"null")) != b"null":
            self.has_failed = True
            return b""
        usage = fields.pop("usage", None)
        is_usage_alone = bytes(fields.get("choices", b"[]")) == b"[]"
        if usage is not None and bytes(usage) != b"null":
            self._usage = bytes(usage)
            self._count_choice(fields.get("choices"), self._usage)
            self._last = {name: value for name, value in fields.items() if name != "choices"}
            self._usage_event = event if is_usage_alone else b""
        if self.is_done or is_usage_alone:
            return b""
        if self._wants_all_usage or usage is None:
            return self._pass_content(event)
        return self._pass_content(b"data: " + _encode(fields) + b"\n\n")

    def _count_choice(self, choices: msgspec.Raw | None, usage: bytes) -> None:
        try:
            indexes = [choice.index for choice in _decode_choices(choices or b"[]")]
            has_count = type(_decode_count(usage).completion_tokens) is int
        except msgspec.DecodeError:  # the whole usage is judged when it is read
            return
        if len(indexes) == 1 and has_count:
            self._usage_by_choice[indexes[0]] = usage
        else:
            self._usage_by_choice.clear()

    def _pass_content(self, event: bytes) -> bytes:
        self.has_content = True
        return event


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
