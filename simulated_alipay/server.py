"""The routes: Alipay's gateway, the page where a trade is paid, and what a test may do."""

import asyncio
import html
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Final

import msgspec
from aiohttp import web

from simulated_alipay.bills import Bills
from simulated_alipay.notifications import Courier, Delivery
from simulated_alipay.signatures import KeyPair, is_signed, public_key, sign, signed_text
from simulated_alipay.trades import AlipayRefusal, Trade, Trades, in_yuan, shown

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

BILL: Final = "alipay.data.dataservice.bill.downloadurl.query"
QUERY: Final = "alipay.trade.query"
PAGE: Final = "alipay.trade.page.pay"


class Payment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    fen: int | None = None


class Refund(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    fen: int


class PlantedPayment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    fen: int
    done_at: str | None = None  # in Beijing; now


class Alteration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    fen: int


class Faults(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How questions fail; all defaults together are a healthy Alipay."""

    status: Annotated[int, msgspec.Meta(ge=400, le=599)] | None = None  # refuse with it
    hang_s: Annotated[float, msgspec.Meta(ge=0, le=600)] = 0.0
    is_busy: bool = False  # code 20000
    unsigned: bool = False  # answer with a signature of nobody
    trade_status: str | None = None  # say this of every trade
    half_bills: bool = False  # files of bills break off


class SimulatedAlipay:
    """One application at Alipay, in memory. ``keys`` are Alipay's own, the public one of the application is known."""

    def __init__(self, keys: KeyPair, *, app_id: str, app_public_key: str, seller_id: str) -> None:
        self.courier = Courier(keys.private)
        self.trades = Trades(app_id, seller_id, lambda trade, fields: self.courier.send(trade.notify_url, fields))
        self.bills = Bills()
        self.trades.moved = self.bills.follow
        self.faults = Faults()
        self.questions: list[str] = []  # out_trade_no of each
        self._keys = keys
        self._app_id = app_id
        self._seller_id = seller_id
        self._app_public_key = public_key(app_public_key)

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._as_alipay_would])
        app.router.add_get("/gateway.do", self.gateway)
        app.router.add_post("/pay/{order}", self.pay_on_page)
        app.router.add_post("/_simulator/trades/{order}/pay", self.pay)
        app.router.add_post("/_simulator/trades/{order}/refund", self.refund)
        app.router.add_post("/_simulator/trades/{order}/finish", self.finish)
        app.router.add_post("/_simulator/trades/{order}/close", self.close)
        app.router.add_get("/bills/{day}", self.download_bill)
        app.router.add_post("/_simulator/payments", self.plant_payment)
        app.router.add_post("/_simulator/bills/{trade_no}/forget", self.forget)
        app.router.add_post("/_simulator/bills/{trade_no}/alter", self.alter)
        app.router.add_post("/_simulator/delivery", self.set_delivery)
        app.router.add_post("/_simulator/faults", self.set_faults)
        app.router.add_get("/_simulator/notifications", self.list_notifications)
        app.router.add_get("/_simulator/attempts", self.list_attempts)
        app.on_cleanup.append(self._close)
        return app

    async def _close(self, app: web.Application) -> None:
        await self.courier.close()

    @web.middleware
    async def _as_alipay_would(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except AlipayRefusal as refusal:
            return self._answer(QUERY, _refused(refusal))
        except (msgspec.DecodeError, KeyError, ValueError, ArithmeticError) as error:
            return web.Response(status=400, text=f"the request makes no sense: {error!r}")

    # --- Alipay's own

    async def gateway(self, request: web.Request) -> web.StreamResponse:
        asked = dict(request.query)
        if asked["app_id"] != self._app_id:
            raise AlipayRefusal("isv.invalid-app-id", "无效的AppID参数", code="40002")
        if not is_signed(self._app_public_key, signed_text(asked, "sign"), asked["sign"]):
            raise AlipayRefusal("isv.invalid-signature", "验签出错", code="40002")
        if asked["method"] == PAGE:
            return self._page(asked)
        if asked["method"] in (QUERY, BILL):
            return await self._questioned(request, asked)
        raise AlipayRefusal("isv.invalid-method", "不存在的方法名", code="40002")

    def _page(self, asked: Mapping[str, str]) -> web.Response:
        order = msgspec.json.decode(asked["biz_content"], type=dict[str, Any])
        trade = self.trades.open(order, asked["notify_url"], asked.get("return_url"))
        line = html.escape(f"{trade.subject}: {in_yuan(trade.fen)} CNY, {trade.status}")
        page = f'<form method=post action="/pay/{trade.out_trade_no}"><p>{line}</p><button>Pay</button></form>'
        return web.Response(text=page, content_type="text/html")

    async def _questioned(self, request: web.Request, asked: Mapping[str, str]) -> web.Response:
        faults = self.faults
        await asyncio.sleep(faults.hang_s)
        if faults.status is not None:
            return web.Response(status=faults.status)
        about = msgspec.json.decode(asked["biz_content"], type=dict[str, str])
        try:
            if faults.is_busy:
                raise AlipayRefusal("aop.ACQ.SYSTEM_ERROR", "系统繁忙", code="20000")
            said = self._bill_of(request, about) if asked["method"] == BILL else self._trade_of(about)
        except AlipayRefusal as refusal:
            said = _refused(refusal)
        return self._answer(asked["method"], said)

    def _trade_of(self, about: Mapping[str, str]) -> dict[str, str]:
        self.questions.append(about["out_trade_no"])
        said = shown(self.trades.get(about["out_trade_no"]))
        return said if self.faults.trade_status is None else {**said, "trade_status": self.faults.trade_status}

    def _bill_of(self, request: web.Request, about: Mapping[str, str]) -> dict[str, str]:
        if about["bill_type"] != "trade":
            raise AlipayRefusal("isv.invalid-parameter", "bill_type", code="40002")
        self.bills.zipped(about["bill_date"], self._seller_id)
        url = f"{request.url.origin()}/bills/{about['bill_date']}"
        return {"code": "10000", "msg": "Success", "bill_download_url": url}

    async def download_bill(self, request: web.Request) -> web.Response:
        self.bills.broken = self.faults.half_bills
        body = self.bills.zipped(request.match_info["day"], self._seller_id)
        return web.Response(body=body, content_type="application/zip")

    def _answer(self, method: str, said: dict[str, str]) -> web.Response:
        """The signature is of the bytes of what is said."""
        text = msgspec.json.encode(said).decode()
        signature = sign(self._keys.private, text + ("." if self.faults.unsigned else ""))
        body = f'{{"{method.replace(".", "_")}_response":{text},"sign":"{signature}"}}'
        return web.Response(text=body, content_type="text/html")

    # --- the customer, the clerk and the test

    async def pay_on_page(self, request: web.Request) -> web.Response:
        trade = self._named(request)
        self.trades.pay(trade)
        if trade.return_url is None:
            return web.Response(text="paid")
        raise web.HTTPSeeOther(trade.return_url)

    async def pay(self, request: web.Request) -> web.Response:
        self.trades.pay(self._named(request), fen=(await _read(request, Payment)).fen)
        return _json({})

    async def refund(self, request: web.Request) -> web.Response:
        self.trades.refund(self._named(request), (await _read(request, Refund)).fen)
        return _json({})

    async def finish(self, request: web.Request) -> web.Response:
        self.trades.finish(self._named(request))
        return _json({})

    async def close(self, request: web.Request) -> web.Response:
        self.trades.close(self._named(request))
        return _json({})

    async def plant_payment(self, request: web.Request) -> web.Response:
        how = await _read(request, PlantedPayment)
        return _json(self.bills.plant(how.fen, how.done_at or self.trades.now()))

    async def forget(self, request: web.Request) -> web.Response:
        self.bills.forget(request.match_info["trade_no"])
        return _json({})

    async def alter(self, request: web.Request) -> web.Response:
        self.bills.alter(request.match_info["trade_no"], (await _read(request, Alteration)).fen)
        return _json({})

    async def set_delivery(self, request: web.Request) -> web.Response:
        self.courier.wishes = await _read(request, Delivery)
        return _json({})

    async def set_faults(self, request: web.Request) -> web.Response:
        self.faults = await _read(request, Faults)
        return _json({})

    async def list_notifications(self, request: web.Request) -> web.Response:
        """Every body so far, oldest first."""
        return _json([body.decode() for body in self.courier.bodies])

    async def list_attempts(self, request: web.Request) -> web.Response:
        return _json(self.courier.attempts)

    def _named(self, request: web.Request) -> Trade:
        return self.trades.get(request.match_info["order"])


async def _read(request: web.Request, model: Any) -> Any:
    return msgspec.json.decode(await request.read() or b"{}", type=model)


def _json(value: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


def _refused(refusal: AlipayRefusal) -> dict[str, str]:
    msg = "Business Failed" if refusal.code == "40004" else "Invalid Arguments"
    return {"code": refusal.code, "msg": msg, "sub_code": refusal.sub_code, "sub_msg": str(refusal)}
