"""Yuanjing's surface: paths end in .dspy, answers are ``{"status": "ok" or "error", "data": …}``.

What a caller asks wrongly, or what cannot be priced, is an answer with status "error" and the reason as its message;
the HTTP status says it as well, but for a usage that a program cannot price: that is what the caller asked to know.
"""

from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

import msgspec
from aiohttp import web

from accounts import Authenticator, Principal
from inference_proxy import CHAT_COMPLETIONS, PriceFeed, Quoter, translate
from ledger.money import units_of
from pricing import PricedProgram, ProgramNotPublished, UsageError
from wire import ApiError, Route, json_reply, read_json

_Answer = Callable[[web.Request], Awaitable[Any]]


class TestBody(msgspec.Struct, kw_only=True):
    ppid: str  # of a program: its id, for the version published last, or id@version
    data: dict[str, Any]  # the usage


class TestData(msgspec.Struct, kw_only=True):
    ppid: str
    data: dict[str, Any]
    result: Decimal  # in the major unit of the program's currency


class QueryBody(msgspec.Struct, kw_only=True):
    product_type: str
    product_id: str  # of a model
    config_data: dict[str, Any]  # the usage


class QueryData(msgspec.Struct, kw_only=True):
    """Prices in the major unit of the account's currency."""

    list_price: Decimal | None  # null: the list has none
    price: Decimal
    config_data: dict[str, Any]


class TestAnswer(msgspec.Struct):
    data: TestData
    status: str = "ok"


class QueryAnswer(msgspec.Struct):
    data: QueryData
    status: str = "ok"


class ErrorData(msgspec.Struct):
    message: str


class ErrorAnswer(msgspec.Struct):
    data: ErrorData
    status: str = "error"


class YuanjingHandlers:
    """The handlers of Yuanjing's price operations."""

    def __init__(self, quoter: Quoter, prices: PriceFeed, authenticator: Authenticator) -> None:
        self._quoter = quoter
        self._prices = prices
        self._authenticator = authenticator

    async def test_pricing_program(self, request: web.Request) -> web.Response:
        """What a program makes of a usage."""
        return await enveloped(request, self._tested)

    async def query_product_price(self, request: web.Request) -> web.Response:
        """What a usage of a model costs by the list, and this customer."""
        return await enveloped(request, self._queried)

    async def _tested(self, request: web.Request) -> TestAnswer:
        principal = await self._authenticator.authenticate(request)
        body = await read_json(request, TestBody)
        price = (await self._program(body.ppid, principal)).program.price(body.data)
        return TestAnswer(TestData(ppid=body.ppid, data=body.data, result=units_of(price.total_microcents)))

    async def _queried(self, request: web.Request) -> QueryAnswer:
        principal = await self._authenticator.authenticate(request)
        body = await read_json(request, QueryBody)
        if body.product_type != "llm":
            raise ApiError("invalid_request", f"there is no product_type {body.product_type[:100]!r}")
        quote = await self._quoter.of_usage(
            CHAT_COMPLETIONS.name, body.product_id, body.config_data, principal.account_id
        )
        data = QueryData(
            list_price=None if quote.list_price is None else _in_units(quote.list_price.charged_cents),
            price=_in_units(quote.price.charged_cents),
            config_data=body.config_data,
        )
        return QueryAnswer(data)

    async def _program(self, ppid: str, principal: Principal) -> PricedProgram:
        """The program, if it may be seen: a customer sees what is or was sold to everybody, its plan or its account."""
        book = self._prices.book
        program, _, version = ppid.rpartition("@")
        if not program:
            versions = book.versions(ppid)
            program, version = ppid, str(versions[-1]) if versions else "0"
        if not version.isascii() or not version.isdigit() or len(version) > 9:
            raise ApiError("not_found", f"there is no pricing program {ppid[:100]!r}")
        try:
            if principal.role == "customer" and not await self._quoter.is_sold_to(
                principal.account_id, program=program, version=int(version)
            ):
                raise ProgramNotPublished(program, int(version))
            return book.program(program, int(version))
        except ProgramNotPublished as error:
            raise ApiError("not_found", f"there is no pricing program {ppid[:100]!r}") from error


def yuanjing_routes(quoter: Quoter, prices: PriceFeed, authenticator: Authenticator) -> list[Route]:
    """The operations of this surface."""
    handlers = YuanjingHandlers(quoter, prices, authenticator)
    return [
        Route(
            method="POST",
            path="/pricing/test_pricing_program.dspy",
            handler=handlers.test_pricing_program,
            summary="What a pricing program makes of a usage",
            tag="yuanjing",
            body=TestBody,
            answer=TestAnswer,
        ),
        Route(
            method="POST",
            path="/platformbiz/product_query_price.dspy",
            handler=handlers.query_product_price,
            summary="What a usage of a model costs by the list, and this customer",
            tag="yuanjing",
            body=QueryBody,
            answer=QueryAnswer,
        ),
    ]


async def enveloped(request: web.Request, answer: _Answer) -> web.Response:
    """What ``answer`` makes of the request, or why not, in the envelope of this surface."""
    try:
        return json_reply(await answer(request))
    except UsageError as error:
        return json_reply(ErrorAnswer(ErrorData(str(error))))
    except Exception as error:
        known = translate(error)
        if known is None:
            raise
        reply = json_reply(ErrorAnswer(ErrorData(known.message)), status=known.status)
        reply.headers.update(known.headers)
        return reply


def _in_units(cents: Decimal) -> Decimal:
    """Exact, whatever digits the arithmetic's context keeps."""
    return Decimal(f"{cents}E-2")
