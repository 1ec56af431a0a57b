"""HTTP/1.1 on one socket, by hand: a quarter of the CPU of a web framework, and free to break every rule on demand.

It reads requests (by length or chunked, one after the other on a kept connection), and writes whole answers, streams,
or what a simulated fault wants instead. When the client goes away, the request being served is cancelled at once.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any, Final, cast

import msgspec

MAX_HEAD_BYTES: Final = 64 * 1024
#: More than the 50 MB that the proxy is tested with.
MAX_BODY_BYTES: Final = 128 * 1024 * 1024
LAST_CHUNK: Final = b"0\r\n\r\n"

_STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b\r\nserver: simulated-backend\r\n" % (status.value, status.phrase.encode())
    for status in HTTPStatus
}


class Request(msgspec.Struct, frozen=True):
    """One request as it came. Header names are in lower case."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    keep_alive: bool


class BadHttp(Exception):
    """The bytes are not a request that we read; ``status`` says which way. The connection cannot be used further."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class RequestReader:
    """Cuts a stream of bytes into requests."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: Request | None = None
        self._chunks = bytearray()

    def feed(self, data: bytes) -> None:
        """Take what the socket gave."""
        self._buffer += data

    @property
    def awaits_go_ahead(self) -> bool:
        """Whether the client holds back the body of the request begun until it is told to continue."""
        return self._head is not None and self._head.headers.get("expect", "").lower() == "100-continue"

    def next_request(self) -> Request | None:
        """The next complete request, None until more bytes came. Raises ``BadHttp``."""
        if self._head is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                if len(self._buffer) > MAX_HEAD_BYTES:
                    raise BadHttp(431, "the head of the request is too large")
                return None
            self._head = _head(self._buffer[:end].decode("latin-1"))
            del self._buffer[: end + 4]
        head = self._head
        body = self._chunked_body() if "transfer-encoding" in head.headers else self._plain_body(head)
        if body is None:
            return None
        self._head = None
        return msgspec.structs.replace(head, body=body) if body else head

    def _plain_body(self, head: Request) -> bytes | None:
        announced = head.headers.get("content-length", "0")
        if not announced.isdigit():
            raise BadHttp(400, f"content-length {announced!r} is not a length")
        length = _checked(int(announced))
        if len(self._buffer) < length:
            return None
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        return body

    def _chunked_body(self) -> bytes | None:
        while (line_end := self._buffer.find(b"\r\n")) >= 0:
            try:
                size = int(self._buffer[:line_end].partition(b";")[0], 16)
            except ValueError:
                raise BadHttp(400, "a chunk has no size") from None
            _checked(len(self._chunks) + size)
            data_end = line_end + 2 + size
            if len(self._buffer) < data_end + 2:
                return None
            self._chunks += self._buffer[line_end + 2 : data_end]
            del self._buffer[: data_end + 2]
            if size == 0:
                body = bytes(self._chunks)
                self._chunks.clear()
                return body
        return None


def _checked(length: int) -> int:
    if length > MAX_BODY_BYTES:
        raise BadHttp(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
    return length


def _head(text: str) -> Request:
    request_line, *lines = text.split("\r\n")
    try:
        method, target, version = request_line.split(" ")
    except ValueError:
        raise BadHttp(400, f"{request_line!r} is not a request line") from None
    path, _, query = target.partition("?")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    keep_alive = version == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
    return Request(method=method, path=path, query=query, headers=headers, body=b"", keep_alive=keep_alive)


#: Serves a request on a connection: at once, or by handing what goes on to ``Connection.serve_on``.
Answer = Callable[["Connection", Request], None]


class Connection(asyncio.Protocol):
    """One client. ``answer`` is called for one request at a time."""

    def __init__(self, answer: Answer, register: set["Connection"]) -> None:
        self._answer = answer
        self._register = register
        self._reader = RequestReader()
        self._task: asyncio.Task[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._keep_alive = True
        self._unsent: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio.Protocol."""
        self._transport = cast(asyncio.Transport, transport)
        # So that "drained" means: everything is with the operating system. The journal's tokens_written relies on it.
        self._transport.set_write_buffer_limits(high=0)
        self._register.add(self)

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol."""
        self._reader.feed(data)
        if self._task is None:
            self._serve_next()

    def eof_received(self) -> None:
        """Part of asyncio.Protocol. A client that will send no more has left: no HTTP client half-closes."""
        self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Part of asyncio.Protocol."""
        self._register.discard(self)
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        """Part of asyncio.Protocol."""
        self._drained = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """Part of asyncio.Protocol."""
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None

    def _serve_next(self) -> None:
        try:
            while self._task is None and not self._transport.is_closing():
                request = self._reader.next_request()
                if request is None:
                    if self._reader.awaits_go_ahead:
                        self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                    return
                self._serve(request)
        except BadHttp as bad:
            self.send(bad.status, msgspec.json.encode({"error": {"message": str(bad)}}))
            self.close()

    def _serve(self, request: Request) -> None:
        self._keep_alive = request.keep_alive
        self._answer(self, request)
        if self._task is None and not request.keep_alive:
            self.close()

    def serve_on(self, work: Coroutine[Any, Any, None], ended: Callable[[asyncio.Task[None]], None]) -> None:
        """Go on serving the request with this coroutine, cancelled when the client leaves; then call ``ended``.

        It is called even when the client left before the coroutine's first step.
        """
        self._task = asyncio.get_running_loop().create_task(work)
        self._task.add_done_callback(ended)
        self._task.add_done_callback(self._served)

    def _served(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if task.cancelled() or self._transport.is_closing():
            return
        if (error := task.exception()) is not None:
            asyncio.get_running_loop().call_exception_handler({"message": "serving failed", "exception": error})
            self.abort()
        elif self._keep_alive:
            self._serve_next()
        else:
            self.close()

    def send(
        self,
        status: int,
        body: bytes,
        *,
        content_type: bytes = b"application/json",
        headers: Mapping[bytes, bytes] | None = None,
        announced_length: int | None = None,
    ) -> None:
        """Write a whole answer. ``announced_length`` is for the fault of a wrong one."""
        length = len(body) if announced_length is None else announced_length
        extra = b"".join(b"%b: %b\r\n" % item for item in headers.items()) if headers else b""
        head = b"%bcontent-type: %b\r\ncontent-length: %d\r\n%b\r\n"
        self._transport.write(head % (_STATUS_LINES[status], content_type, length, extra) + body)

    def start_stream(self, headers: Mapping[bytes, bytes]) -> None:
        """Begin an event stream. Its parts are collected and go out together when ``drained`` is awaited."""
        extra = b"".join(b"%b: %b\r\n" % item for item in headers.items())
        head = b"%bcontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n%b\r\n"
        self._unsent.append(head % (_STATUS_LINES[200], extra))

    def send_chunk(self, data: bytes) -> None:
        """Add to the stream."""
        self._unsent.append(b"%x\r\n%b\r\n" % (len(data), data))

    def end_stream(self) -> None:
        """Mark the stream as complete."""
        self._unsent.append(LAST_CHUNK)

    @property
    def is_drained(self) -> bool:
        """Whether the operating system has taken everything."""
        return self._drained is None and not self._unsent

    async def drained(self) -> None:
        """Send what was collected and wait until the operating system has taken everything."""
        if self._unsent:
            self._transport.write(b"".join(self._unsent))
            self._unsent.clear()
        if self._drained is not None:
            await self._drained

    def close(self) -> None:
        """Close; what the operating system was not given before is still sent, what was only collected is not."""
        self._transport.close()

    def stop(self) -> asyncio.Task[None] | None:
        """Close now and cancel the request being served; gives its task, to be waited for."""
        self._transport.abort()
        if self._task is not None:
            self._task.cancel()
        return self._task

    def abort(self) -> None:
        """Close now; what was not sent yet is lost."""
        self._transport.abort()
