"""The native error body, and the one table of its codes.

``{"error": {"message": …, "type": …, "code": …, "param": …}}``, as the OpenAI and Mistral SDKs read it. Further
fields (``reason``, ``limit_cents``, ``resets_at``, …) stand beside them.
"""

from typing import Any, Final

import msgspec
from aiohttp import web

#: code → (HTTP status, type)
CODES: Final[dict[str, tuple[int, str]]] = {
    "invalid_request": (400, "invalid_request_error"),
    "unauthorized": (401, "authentication_error"),
    "invalid_credentials": (401, "authentication_error"),
    "payment_required": (402, "insufficient_quota"),
    "forbidden": (403, "permission_error"),
    "not_found": (404, "not_found_error"),
    "model_not_found": (404, "not_found_error"),
    "model_not_priced": (404, "not_found_error"),
    "method_not_allowed": (405, "invalid_request_error"),
    "conflict": (409, "conflict_error"),
    "idempotency_mismatch": (409, "conflict_error"),
    "payload_too_large": (413, "invalid_request_error"),
    "rate_limit_exceeded": (429, "rate_limit_error"),
    "internal_error": (500, "api_error"),
    "backend_error": (502, "service_unavailable"),
    "no_backend": (503, "service_unavailable"),
    "payment_provider_error": (502, "service_unavailable"),
    "payment_provider_unavailable": (503, "service_unavailable"),
    "payments_not_configured": (503, "service_unavailable"),
    "ledger_unavailable": (503, "service_unavailable"),
    "shutting_down": (503, "service_unavailable"),
    "backend_timeout": (504, "service_unavailable"),
}


class ApiError(Exception):
    """A request that is answered with an error. ``code`` is one of ``CODES`` and decides status and type."""

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: dict[str, str] | None = None,
        fields: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.headers = headers or {}
        self.fields = fields or {}

    @property
    def status(self) -> int:
        return CODES[self.code][0]

    @property
    def body(self) -> dict[str, Any]:
        error = {"message": self.message, "type": CODES[self.code][1], "code": self.code, "param": self.param}
        return {"error": error | self.fields}


_encode = msgspec.json.Encoder(decimal_format="number").encode


def error_reply(error: ApiError) -> web.Response:
    """The HTTP answer for an error."""
    return web.Response(
        body=_encode(error.body), status=error.status, headers=error.headers, content_type="application/json"
    )


def error_event(error: ApiError) -> bytes:
    """The error as an event of a stream that has begun; the OpenAI and Mistral SDKs raise it."""
    return b"data: " + _encode(error.body) + b"\n\n"
