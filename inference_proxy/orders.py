"""What one client asks for: its request, and what the headers say of how it is to be served."""

import hashlib
import re
from decimal import Decimal, InvalidOperation

import msgspec
from aiohttp import web

from accounts import Principal
from inference_proxy.operations import Operation
from ledger import Microcents, microcents_from_cents, new_id
from wire import ApiError

IDEMPOTENCY_KEY = "idempotency-key"
#: In cents of the account's currency: the client wants no answer that can cost more.
MAX_COST = "x-tollgate-max-cost"
#: The OpenAI SDKs say with it which try this is, from 0.
RETRY_COUNT = "x-stainless-retry-count"

#: As long as Stripe's, and nothing that a log or a header could stumble over.
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_SMALL_NUMBER = re.compile(r"[0-9]{1,4}")


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One request to be paid and served."""

    operation: Operation
    account_id: str  # that pays
    key_id: str | None
    body: bytes
    request_id: str
    hold_id: str
    idempotency_key: str | None = None
    max_cost: Microcents | None = None
    retry_count: int = 0

    @property
    def fingerprint(self) -> bytes:
        """What an idempotency key is bound to: SHA-256 of the operation and of the body to the byte."""
        return hashlib.sha256(self.operation.path.encode() + b"\n" + self.body).digest()


def read_order(operation: Operation, principal: Principal, body: bytes, request: web.Request) -> Order:
    """The order in a request. Raises ApiError."""
    if principal.account_id is None:
        raise ApiError("forbidden", "inference is paid by an account; a service token has none")
    return Order(
        operation=operation,
        account_id=principal.account_id,
        key_id=principal.key_id,
        body=body,
        request_id=request["request_id"],
        hold_id=new_id("hold"),
        idempotency_key=_idempotency_key(request),
        max_cost=_max_cost(request),
        retry_count=_retry_count(request),
    )


def _idempotency_key(request: web.Request) -> str | None:
    key = request.headers.get(IDEMPOTENCY_KEY)
    if key is not None and not _KEY.fullmatch(key):
        raise ApiError(
            "invalid_request", "an Idempotency-Key is 1 to 255 visible ASCII characters", param=IDEMPOTENCY_KEY
        )
    return key


def _max_cost(request: web.Request) -> Microcents | None:
    text = request.headers.get(MAX_COST)
    if text is None:
        return None
    try:
        cost = microcents_from_cents(Decimal(text))
    except (InvalidOperation, ValueError, ArithmeticError) as error:
        raise ApiError("invalid_request", f"{text[:40]!r} is not an amount of cents", param=MAX_COST) from error
    if cost < 0:
        raise ApiError("invalid_request", "a cost is not negative", param=MAX_COST)
    return cost


def _retry_count(request: web.Request) -> int:
    text = request.headers.get(RETRY_COUNT, "")
    return int(text) if _SMALL_NUMBER.fullmatch(text) else 0
