"""The metered operations and the models, over HTTP."""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal

import msgspec
from aiohttp import web

from inference_proxy.backends import BackendPool
from inference_proxy.gate import Gate
from inference_proxy.models import Model, ModelCatalog
from inference_proxy.operations import OPERATIONS, Operation
from inference_proxy.orders import IDEMPOTENCY_KEY, MAX_COST, RETRY_COUNT
from inference_proxy.prices import PriceFeed
from inference_proxy.quote_routes import DRY_RUN, QuoteRoutes, is_dry_run
from ledger.money import MICROCENTS_PER_UNIT
from pricing import ModelNotPriced, Program, UsageError
from wire import Route, json_reply

MILLION = 1_000_000
_METERED_ERRORS = (
    "payment_required",
    "forbidden",
    "model_not_found",
    "model_not_priced",
    "conflict",
    "idempotency_mismatch",
    "payload_too_large",
    "rate_limit_exceeded",
    "backend_error",
    "no_backend",
    "ledger_unavailable",
    "shutting_down",
    "backend_timeout",
)
#: What a metered request can say of how it is served.
_METERED_HEADERS = {
    IDEMPOTENCY_KEY: "served and charged once; the same request again gets the stored answer, for 24 hours",
    MAX_COST: "cents; the answer is limited to what costs no more, as x-tollgate-max-tokens says then",
    DRY_RUN: "true: answered with a quote, neither forwarded nor charged",
    RETRY_COUNT: "which try this is, from 0; shown on the receipt",
}


class Pricing(msgspec.Struct, frozen=True, kw_only=True):
    """The list price in force, in the currency's major unit for a million tokens."""

    program: str  # id@version
    currency: str
    std_input: Decimal | None
    std_cached_input: Decimal | None
    std_output: Decimal | None


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """A model as the OpenAI and Mistral SDKs read it, with what it costs."""

    id: str
    object: str = "model"
    type: str = "base"
    created: int = 0  # Unix seconds; models here have no birthday
    owned_by: str
    status: str  # available, or no_backend
    context_length: int
    max_context_length: int
    max_output_tokens: int
    licence: str | None
    pricing: Pricing | None  # None = not priced, and so refused


class ModelList(msgspec.Struct, frozen=True):
    data: list[ModelCard]
    object: str = "list"


class ModelHandlers:
    """The handlers of the model operations; what they need is passed in."""

    def __init__(
        self, models: ModelCatalog, prices: PriceFeed, backends: BackendPool, clock: Callable[[], datetime]
    ) -> None:
        self._models = models
        self._prices = prices
        self._backends = backends
        self._clock = clock

    async def list_models(self, request: web.Request) -> web.Response:
        return json_reply(ModelList([self._card(model) for model in self._models]))

    async def get_model(self, request: web.Request) -> web.Response:
        return json_reply(self._card(self._models.find(request.match_info["model"])))

    def _card(self, model: Model) -> ModelCard:
        return ModelCard(
            id=model.id,
            owned_by=model.owned_by,
            status="available" if self._backends.serves(model.id) else "no_backend",
            context_length=model.context_length,
            max_context_length=model.context_length,
            max_output_tokens=model.output_limit,
            licence=model.licence,
            pricing=self._pricing(model),
        )

    def _pricing(self, model: Model) -> Pricing | None:
        try:
            priced = self._prices.book.resolve(model=model.id, operation="chat.completions", at=self._clock())
        except ModelNotPriced:
            return None
        return Pricing(
            program=f"{priced.ref.program}@{priced.ref.version}",
            currency=priced.program.currency,
            std_input=_per_million(priced.program, input_tokens=MILLION),
            std_cached_input=_per_million(priced.program, input_tokens=MILLION, cached_input_tokens=MILLION),
            std_output=_per_million(priced.program, output_tokens=MILLION),
        )


def _per_million(program: Program, **tokens: int) -> Decimal | None:
    """What a request of nothing but these tokens costs, in the currency's major unit; None where tokens alone do not
    tell."""
    usage = {"input_tokens": 0, "cached_input_tokens": 0, "output_tokens": 0, "reasoning_tokens": 0, **tokens}
    try:
        return Decimal(program.price(usage).total_microcents) / MICROCENTS_PER_UNIT
    except UsageError:
        return None


def inference_routes(gate: Gate, handlers: ModelHandlers, quotes: QuoteRoutes) -> list[Route]:
    """The metered operations, one route for each row of their table, their quotes, and the models."""
    return [
        *(_metered(gate, quotes, operation) for operation in OPERATIONS),
        *quotes.routes(),
        Route(
            method="GET",
            path="/v1/models",
            handler=handlers.list_models,
            summary="The models for sale",
            tag="models",
            auth="public",
            answer=ModelList,
        ),
        Route(
            method="GET",
            path="/v1/models/{model}",
            handler=handlers.get_model,
            summary="One model",
            tag="models",
            auth="public",
            answer=ModelCard,
            errors=("model_not_found",),
        ),
    ]


def _metered(gate: Gate, quotes: QuoteRoutes, operation: Operation) -> Route:
    async def serve(request: web.Request) -> web.StreamResponse:
        if is_dry_run(request):
            return await quotes.dry_run(operation, request)
        return await gate.serve(operation, request)

    serve.__name__ = "create_" + operation.name.replace(".", "_")
    return Route(
        method="POST",
        path=operation.path,
        handler=serve,
        summary=operation.summary,
        tag="inference",
        headers=_METERED_HEADERS,
        body=operation.request,
        errors=_METERED_ERRORS,
    )
