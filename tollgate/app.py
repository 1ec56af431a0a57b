"""One gate process: what it is built from, and the order in which it starts and stops."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import aiohttp
import asyncpg
import msgspec
import prometheus_client
import structlog
from aiohttp import web
from argon2 import PasswordHasher
from prometheus_client import multiprocess

from accounts import Authenticator, Keys, Operators, Passwords, Tokens, Users, account_routes
from dialects import recharge_routes, yuanjing_routes
from inference_proxy import (
    AnswerStore,
    BackendPool,
    Endings,
    Gate,
    ModelCatalog,
    ModelHandlers,
    Placer,
    PriceFeed,
    Quoter,
    QuoteRoutes,
    ReceiptRoutes,
    TermsOfAccounts,
    Upstream,
    WriteAheadFile,
    flush_regularly,
    inference_routes,
    recover_regularly,
    translate,
)
from ledger import UNREACHABLE, Lease, Ledger, new_id, new_worker_id
from notices import SigningSecrets, notice_routes
from payments import (
    AlipayCheckouts,
    AlipayRoutes,
    PaymentsConfig,
    Roads,
    TopupRoutes,
    UsdcRoutes,
    open_roads,
    stripe_routes,
)
from projections import usage_routes
from tollgate.database import close_pool, connect, create_pool
from tollgate.notices_config import notice_targets
from tollgate.settings import Settings
from wire import ApiError, Route, error_reply, json_reply, mount, openapi_document
from wire.routes import Handler

_log = structlog.get_logger(__name__)

#: A backend connection is kept this long for the next request.
KEEPALIVE_S = 60.0


def utc_now() -> datetime:
    """The clock of production. Everything below gets its clock passed in."""
    return datetime.now(UTC)


#: The gate of an application, for whoever stops it.
GATE = web.AppKey("gate", Gate)


@asynccontextmanager
async def gate_app(
    settings: Settings,
    *,
    database_url: str,
    secret: bytes,
    payments: PaymentsConfig,
    clock: Callable[[], datetime] = utc_now,
) -> AsyncIterator[web.Application]:
    """The application of one gate process, running. Its gate is to be drained before it is left."""
    monotonic = asyncio.get_running_loop().time
    async with AsyncExitStack() as stack:
        pool = await create_pool(database_url)
        stack.push_async_callback(close_pool, pool)
        ledger = await Ledger.open(pool, lambda: connect(database_url), clock)
        stack.push_async_callback(ledger.close)
        lease = Lease(lambda: connect(database_url), new_worker_id())
        await lease.start()
        stack.push_async_callback(lease.close)
        write_ahead_dir = Path(settings.server.write_ahead_dir)
        write_ahead = WriteAheadFile.open(write_ahead_dir, lease.worker_id)
        stack.callback(write_ahead.close)
        backends = await stack.enter_async_context(_backend_pool(settings, monotonic))
        prices = PriceFeed(ledger)
        await prices.refresh()
        for task in (
            asyncio.create_task(backends.watch(), name="backends"),
            asyncio.create_task(prices.follow(), name="prices"),
            asyncio.create_task(flush_regularly(ledger), name="metrics"),
            asyncio.create_task(recover_regularly(write_ahead_dir, ledger.submit), name="recovery"),
        ):
            stack.push_async_callback(_cancel, task)
        roads = await stack.enter_async_context(open_roads(payments, ledger, clock))
        tokens = Tokens(secret)
        authenticator = Authenticator(ledger, tokens, clock=clock, monotonic=monotonic)
        models = ModelCatalog(settings.models)
        terms = TermsOfAccounts(ledger)
        endings = Endings()
        placer = Placer(
            ledger=ledger,
            models=models,
            prices=prices,
            terms=terms,
            backends=backends,
            write_ahead=write_ahead,
            endings=endings,
            worker_id=lease.worker_id,
            clock=clock,
        )
        gate = Gate(
            authenticator=authenticator,
            models=models,
            placer=placer,
            upstream=Upstream(backends),
            answers=AnswerStore(ledger),
            endings=endings,
            clock=clock,
            monotonic=monotonic,
            forwarded_headers=frozenset(settings.proxy.forward_headers),
        )
        quoter = Quoter(prices, terms, models, clock)
        routes = [
            *inference_routes(gate, ModelHandlers(models, prices, backends, clock), QuoteRoutes(quoter, authenticator)),
            *ReceiptRoutes(ledger, prices, authenticator).routes(),
            *yuanjing_routes(quoter, prices, authenticator),
            *_account_routes(settings, ledger, tokens, authenticator, clock),
            *usage_routes(ledger, authenticator, clock),
            *_topup_routes(roads, ledger, prices, authenticator, clock),
            *_notice_routes(settings, ledger, secret, authenticator, clock),
        ]
        yield build_app(routes, gate, pool, backends)


def _account_routes(
    settings: Settings, ledger: Ledger, tokens: Tokens, authenticator: Authenticator, clock: Callable[[], datetime]
) -> list[Route]:
    currency = settings.accounts.currency
    return account_routes(
        ledger,
        users=Users(ledger, tokens, Passwords(PasswordHasher()), currency=currency, clock=clock),
        keys=Keys(ledger, tokens, authenticator, clock=clock),
        operators=Operators(ledger, clock=clock),
        authenticator=authenticator,
        clock=clock,
        monotonic=asyncio.get_running_loop().time,
    )


def _topup_routes(
    roads: Roads,
    ledger: Ledger,
    prices: PriceFeed,
    authenticator: Authenticator,
    clock: Callable[[], datetime],
) -> list[Route]:
    checkouts = None
    if roads.alipay is not None:
        checkouts = AlipayCheckouts(ledger, roads.alipay.api, prices.book.exchange_rate, clock)
    return [
        *TopupRoutes(ledger, authenticator).routes(),
        *stripe_routes(ledger, authenticator, roads.stripe),
        *AlipayRoutes(authenticator, roads.alipay, checkouts).routes(),
        *UsdcRoutes(authenticator, roads.usdc).routes(),
        *recharge_routes(checkouts, authenticator),
    ]


def _notice_routes(
    settings: Settings, ledger: Ledger, secret: bytes, authenticator: Authenticator, clock: Callable[[], datetime]
) -> list[Route]:
    return notice_routes(
        ledger,
        secrets=SigningSecrets(secret),
        targets=notice_targets(settings),
        authenticator=authenticator,
        clock=clock,
    )


def build_app(routes: list[Route], gate: Gate, pool: asyncpg.Pool, backends: BackendPool) -> web.Application:
    """The routes with what every answer shares: request id, native errors, health and the OpenAPI description."""
    app = web.Application(middlewares=[answer_errors])
    app[GATE] = gate
    app.on_response_prepare.append(_add_request_id)
    service = _ServiceHandlers(pool, backends)
    routes = [*routes, *service.routes()]
    service.openapi = msgspec.json.encode(openapi_document([*routes], title="Tollgate", version=version("tollgate")))
    mount(app, routes)
    return app


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give every request an id, and every failure the native error body. Never leaks a traceback."""
    request["request_id"] = new_id("req")
    try:
        return await handler(request)
    except web.HTTPException as error:
        return error_reply(_of_http(error))
    except Exception as error:
        if request.transport is None or request.transport.is_closing():
            return web.Response(status=499)  # for nobody; raised further, aiohttp would log it as an error of ours
        known = translate(error)
        if known is None:
            _log.exception("request.failed", request_id=request["request_id"], path=request.path)
            known = ApiError("internal_error", f"an error of ours; please quote {request['request_id']}")
        return error_reply(known)


def _of_http(error: web.HTTPException) -> ApiError:
    match error.status:
        case 404:
            return ApiError("not_found", "there is no such operation")
        case 405:
            allowed = {"Allow": error.headers["Allow"]}
            return ApiError("method_not_allowed", f"the operation has {allowed['Allow']}", headers=allowed)
        case 413:
            return ApiError("payload_too_large", "the body is too large")
        case _:
            return ApiError("invalid_request", error.reason)


async def _add_request_id(request: web.Request, response: web.StreamResponse) -> None:
    # One without an id was answered before it came to any handler: aiohttp refuses an Expect that it does not know.
    response.headers["x-request-id"] = request.setdefault("request_id", new_id("req"))


class Health(msgspec.Struct, frozen=True):
    status: str


class Readiness(msgspec.Struct, frozen=True):
    status: str  # ready, or not_ready
    postgres: bool
    backends: dict[str, bool]


class _ServiceHandlers:
    """What operators and their tools ask of a process."""

    openapi = b""

    def __init__(self, pool: asyncpg.Pool, backends: BackendPool) -> None:
        self._pool = pool
        self._backends = backends

    async def get_health(self, request: web.Request) -> web.Response:
        return json_reply(Health("ok"))

    async def get_readiness(self, request: web.Request) -> web.Response:
        try:
            postgres = bool(await self._pool.fetchval("SELECT true", timeout=2))
        except UNREACHABLE:
            postgres = False
        backends = {backend.name: backend.is_healthy for backend in self._backends.backends}
        is_ready = postgres and any(backends.values())
        return json_reply(
            Readiness("ready" if is_ready else "not_ready", postgres, backends), status=200 if is_ready else 503
        )

    async def get_metrics(self, request: web.Request) -> web.Response:
        registry = prometheus_client.CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        body = prometheus_client.generate_latest(registry)
        return web.Response(body=body, headers={"content-type": prometheus_client.CONTENT_TYPE_LATEST})

    async def get_openapi(self, request: web.Request) -> web.Response:
        return web.Response(body=self.openapi, content_type="application/json")

    def routes(self) -> list[Route]:
        return [
            Route(
                method="GET",
                path="/health",
                handler=self.get_health,
                summary="The process lives",
                tag="service",
                auth="public",
                answer=Health,
            ),
            Route(
                method="GET",
                path="/ready",
                handler=self.get_readiness,
                tag="service",
                auth="public",
                summary="Postgres and a backend answer; 503 otherwise",
                answer=Readiness,
            ),
            Route(
                method="GET",
                path="/metrics",
                handler=self.get_metrics,
                summary="Prometheus metrics",
                tag="service",
                auth="public",
                content_type="text/plain",
            ),
            Route(
                method="GET",
                path="/openapi.json",
                handler=self.get_openapi,
                summary="This description",
                tag="service",
                auth="public",
            ),
        ]


@asynccontextmanager
async def _backend_pool(settings: Settings, monotonic: Callable[[], float]) -> AsyncIterator[BackendPool]:
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield BackendPool(settings.backends, session, monotonic=monotonic)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
