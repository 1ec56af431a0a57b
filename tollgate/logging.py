"""One JSON object a line, events as noun.verb with keys."""

import logging
import sys
from contextlib import suppress
from typing import BinaryIO

import msgspec
import structlog

_encode = msgspec.json.Encoder(enc_hook=str).encode


class _Lines(structlog.BytesLogger):
    """Writes lines. One that cannot be written (a full disk, a closed pipe) is lost: never the work it tells of."""

    def msg(self, message: bytes) -> None:
        with suppress(OSError, ValueError):
            super().msg(message)

    log = debug = info = warn = warning = fatal = failure = err = error = critical = exception = msg


def log_to_stdout() -> None:
    """What a process that serves does."""
    _configure(sys.stdout.buffer, logging.INFO)


def log_trouble_to_stderr() -> None:
    """What a command does: its output is for people and pipes."""
    _configure(sys.stderr.buffer, logging.WARNING)


def _configure(stream: BinaryIO, level: int) -> None:
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=lambda event, **_: _encode(event)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _Lines(stream),
        cache_logger_on_first_use=level == logging.INFO,
    )
