"""A stream of server-sent events on its way through: bytes in, bytes out, and what they say of usage.

No I/O. Events pass as the bytes that they came in, at once; only what we asked for and the client did not is taken
out, and ``[DONE]`` is kept back until the request is settled.
"""

from typing import Any

import msgspec

_USAGE = b'"usage"'
_DONE = b"[DONE]"
#: An event larger than this without an end is not one that we wait for.
MAX_EVENT = 4 * 1024 * 1024

_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


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
        self._last: dict[str, msgspec.Raw] = {}  # fields of the last chunk that carried usage
        self._usage_is_passed = False
        self.is_done = False  # [DONE] has arrived
        self.has_content = False  # something of an answer has been passed on

    @property
    def usage(self) -> Any:
        """The last usage that the backend reported, decoded; None when it reported none. Never summed: it is
        cumulative wherever it appears more than once."""
        return None if self._usage is None else msgspec.json.decode(self._usage)

    def feed(self, data: bytes) -> bytes:
        """What of the arrived bytes goes to the client now: whole events only."""
        data = self._rest + data if self._rest else data
        end = _last_event_end(data)
        events, self._rest = data[:end], data[end:]
        if len(self._rest) > MAX_EVENT:
            raise EventTooLarge(f"an event of more than {MAX_EVENT} bytes")
        if not events:
            return b""
        if not self.is_done and _USAGE not in events and _DONE not in events:
            self.has_content = True
            return events
        return b"".join([self._pass(event) for event in _split(events)])

    def usage_chunk(self) -> bytes:
        """The usage chunk for a client that asked for one, where the backend sent its usage in another place."""
        if not self._wants_usage or self._usage_is_passed or self._usage is None:
            return b""
        return b"data: " + _encode({**self._last, "choices": [], "usage": msgspec.Raw(self._usage)}) + b"\n\n"

    def _pass(self, event: bytes) -> bytes:
        """The event as the client gets it. Usage that arrives after [DONE] counts, and is not passed on."""
        data = _data_of(event)
        if data == _DONE:
            self.is_done = True
            return b""
        if data is None or _USAGE not in data:
            return b"" if self.is_done else self._pass_content(event)
        try:
            fields = _decode_fields(data)
        except msgspec.DecodeError:
            return self._pass_content(event)
        usage = fields.pop("usage", None)
        if usage is not None and bytes(usage) != b"null":
            self._usage = bytes(usage)
            self._last = {name: value for name, value in fields.items() if name != "choices"}
        if self.is_done:
            return b""
        if bytes(fields.get("choices", b"[]")) == b"[]":
            self._usage_is_passed = self._wants_usage
            return event if self._wants_usage else b""
        if self._wants_all_usage or usage is None:
            return self._pass_content(event)
        return self._pass_content(b"data: " + _encode(fields) + b"\n\n")

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
