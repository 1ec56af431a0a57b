"""The table of metered operations. One row = a path, how its request is bounded, and how its usage is read.

The gate knows nothing else about an operation: adding one means adding a row.
"""

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from inference_proxy import chat
from inference_proxy.models import ModelCatalog
from inference_proxy.prepared import Prepared
from pricing import Usage


class Prepare(Protocol):
    """Bounds a request. Raises ApiError for one that it cannot bound."""

    def __call__(self, body: bytes, models: ModelCatalog, *, at_most: int | None = None) -> Prepared: ...


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table."""

    name: str
    path: str  # ours and the backends'
    summary: str
    request: Any  # the Struct type of its request, for the OpenAPI description
    prepare: Prepare
    read_usage: Callable[[Any], Usage]  # from the decoded ``usage`` object of an answer; raises UsageUnreadable
    limit_s: int  # the longest one request may take
    max_body: int  # bytes


CHAT_COMPLETIONS = Operation(
    name="chat.completions",
    path="/v1/chat/completions",
    summary="Chat completion, plain or as a stream of server-sent events",
    request=chat.ChatRequest,
    prepare=chat.prepare,
    read_usage=chat.read_usage,
    limit_s=600,
    max_body=10 * 1024 * 1024,
)

OPERATIONS = (CHAT_COMPLETIONS,)
