"""The gate: authenticate → bound → price the bound → HOLD → backend → read usage → price it → SETTLE → last byte.

Nothing is forwarded before its hold is committed, and no answer is complete before its charge is.
"""

from collections.abc import Callable
from datetime import datetime

import structlog
from aiohttp import web

from accounts import Authenticator, Principal
from inference_proxy.backends import Backend, BackendPool, no_backend
from inference_proxy.holds import SLACK_S, Orphans, RequestHold
from inference_proxy.metrics import REQUESTS, TALLY, UNREADABLE_USAGE
from inference_proxy.models import ModelCatalog
from inference_proxy.operations import Operation
from inference_proxy.prepared import Prepared
from inference_proxy.prices import PriceFeed, RequestPrice
from inference_proxy.refusals import rate_limit_headers, translate
from inference_proxy.relay import ClientGone, relay
from inference_proxy.terms import Terms, TermsOfAccounts
from inference_proxy.upstream import BackendBroke, answer_of, whole_body
from inference_proxy.usage import UsageUnreadable, usage_object
from ledger import Committed, Ledger, Microcents, PlaceHold, cents_text, new_id
from ledger.errors import BudgetExceeded, InsufficientFunds, KeyUnknown, PlanOutdated
from ledger.events import HoldSettled
from pricing import Span, UsageBox, UsageError
from wire import ApiError, read_body

_log = structlog.get_logger(__name__)


class Gate:
    """Serves the metered operations of one process."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        authenticator: Authenticator,
        models: ModelCatalog,
        prices: PriceFeed,
        terms: TermsOfAccounts,
        backends: BackendPool,
        worker_id: int,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        forwarded_headers: frozenset[str] = frozenset(),
    ) -> None:
        self._ledger = ledger
        self._authenticator = authenticator
        self._models = models
        self._prices = prices
        self._terms = terms
        self._backends = backends
        self._worker_id = worker_id
        self._clock = clock
        self._monotonic = monotonic
        self._forwarded_headers = forwarded_headers
        self.orphans = Orphans()

    async def serve(self, operation: Operation, request: web.Request) -> web.StreamResponse:
        """Answer one metered request. Raises ApiError, or what ``translate`` turns into one."""
        started = self._monotonic()
        outcome = "refused"
        TALLY.in_flight += 1
        try:
            principal = await self._authenticator.authenticate_metered(request)
            body = await read_body(request, limit=operation.max_body)
            prepared = operation.prepare(body, self._models)
            hold = await self._hold(operation, prepared, principal, request["request_id"])
            outcome = "failed"
            try:
                answer = await self._forward(operation, prepared, hold, request)
            except (ApiError, BackendBroke) as error:
                await hold.void("backend_failed")
                raise _as_api_error(error) from error
            except ClientGone as error:
                await hold.void("client_gone")
                raise ConnectionResetError from error
            finally:
                if not hold.is_ended:
                    self.orphans.adopt(hold, "cut_off")
            outcome = "served"
            return answer
        finally:
            TALLY.in_flight -= 1
            TALLY.count(REQUESTS, operation.name, outcome)
            TALLY.took(operation.name, self._monotonic() - started)

    async def _hold(
        self, operation: Operation, prepared: Prepared, principal: Principal, request_id: str
    ) -> RequestHold:
        """Set aside the most that the request can cost. Raises a refusal; then nothing was forwarded or written."""
        if principal.account_id is None:
            raise ApiError("forbidden", "inference is paid by an account; a service token has none")
        terms = await self._terms.of(principal.account_id)
        while True:
            try:
                return await self._place(operation, prepared, principal, request_id, terms)
            except PlanOutdated as error:  # priced again for the plan that counts
                terms = self._terms.changed(principal.account_id, terms, plan=error.plan)

    async def _place(
        self, operation: Operation, prepared: Prepared, principal: Principal, request_id: str, terms: Terms
    ) -> RequestHold:
        assert principal.account_id is not None  # whose terms these are
        price = self._prices.of_request(operation.name, prepared.model, principal.account_id, terms, at=self._clock())
        if not self._backends.serves(prepared.model):
            raise no_backend(prepared.model)
        command = PlaceHold(
            stream_id=principal.account_id,
            hold_id=new_id("hold"),
            amount_microcents=price.bound(prepared.box),
            operation=operation.name,
            model=prepared.model,
            price=price.priced.ref,
            worker_id=self._worker_id,
            lifetime_s=operation.limit_s + SLACK_S,
            key_id=principal.key_id,
            request_id=request_id,
            plan=terms.plan,
            exchange_rate=price.priced.exchange_rate,
        )
        try:
            placed = await self._ledger.submit(command)
        except (InsufficientFunds, BudgetExceeded) as error:
            refusal = translate(error, affordable=_affordable(prepared, price, error))
            assert refusal is not None  # both are in the table
            raise refusal from error
        except KeyUnknown as error:
            raise ApiError("unauthorized", "the key is not valid") from error
        return RequestHold(self._ledger, placed, command, price)

    async def _forward(
        self, operation: Operation, prepared: Prepared, hold: RequestHold, request: web.Request
    ) -> web.StreamResponse:
        headers = {name: value for name in self._forwarded_headers if (value := request.headers.get(name))}
        headers["x-request-id"] = request["request_id"]
        async with answer_of(self._backends, operation, prepared, headers) as (backend, answer):
            if prepared.stream and answer.content_type == "text/event-stream":
                return await relay(
                    operation, prepared, hold, backend, answer, request, self._headers(hold, hold.placed)
                )
            body = await whole_body(answer)
        if request.transport is None or request.transport.is_closing():
            raise ClientGone("nobody is left to serve")  # an answer of which nothing arrives is free
        try:
            committed = await hold.settle(
                operation.read_usage(usage_object(body)), outcome="completed", backend=backend.name
            )
        except (UsageUnreadable, UsageError) as error:
            raise _unreadable(backend, hold, error) from error
        return web.Response(body=body, content_type="application/json", headers=self._headers(hold, committed))

    def _headers(self, hold: RequestHold, committed: Committed) -> dict[str, str]:
        headers = rate_limit_headers(hold.placed.key, self._clock())
        headers["x-tollgate-hold-id"] = hold.id
        event = committed.stored.event
        if isinstance(event, HoldSettled):
            headers["x-tollgate-cost-cents"] = cents_text(event.amount_microcents)
            headers["x-tollgate-balance-cents"] = cents_text(committed.account.posted)
        return headers


def _fits(price: RequestPrice, box: UsageBox, left: Microcents) -> bool:
    try:
        return price.bound(box) <= left
    except UsageError:  # a shorter answer can be one that the program refuses
        return False


def _as_api_error(error: ApiError | BackendBroke) -> ApiError:
    if isinstance(error, ApiError):
        return error
    return ApiError("backend_error", f"the backend broke off its answer; nothing was charged: {error}")


def _unreadable(backend: Backend, hold: RequestHold, error: Exception) -> ApiError:
    """An answer that cannot be priced is not served: it would be free."""
    TALLY.count(UNREADABLE_USAGE, backend.name)
    _log.error("usage.unreadable", backend=backend.name, hold_id=hold.id, error=str(error))
    return ApiError("backend_error", f"the backend does not say what the answer used; nothing was charged: {error}")


def _affordable(prepared: Prepared, price: RequestPrice, error: InsufficientFunds | BudgetExceeded) -> str:
    """How many tokens the money that is left would pay for, in the words that clients look for."""
    if prepared.max_output_tokens is None:
        return ""
    if isinstance(error, InsufficientFunds):
        left = error.available
    else:
        left = Microcents(error.limit - error.spent - error.held)
    low, high = 0, prepared.max_output_tokens  # low fits, or is 0; high does not fit
    while low + 1 < high:
        middle = (low + high) // 2
        output = Span(0, middle * prepared.answers)
        box = {**prepared.box, **dict.fromkeys(prepared.answer_keys, output)}
        if _fits(price, box, left):
            low = middle
        else:
            high = middle
    return f". You requested up to {prepared.max_output_tokens} tokens, but can only afford {low}."
