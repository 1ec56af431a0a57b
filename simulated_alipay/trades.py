"""What Alipay keeps of payments, and what it tells of them: a trade waits for its payer, is paid, refunded, closed.

Amounts are whole fen here, and yuan with two decimals where they are told.
"""

import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import msgspec

BEIJING: Final = timedelta(hours=8)


class AlipayRefusal(Exception):
    """A question that Alipay answers with this code and sub-code."""

    def __init__(self, sub_code: str, sub_msg: str, *, code: str = "40004") -> None:
        super().__init__(sub_msg)
        self.code = code
        self.sub_code = sub_code


class Trade(msgspec.Struct, kw_only=True):
    """One payment of one order."""

    trade_no: str
    out_trade_no: str
    subject: str
    fen: int
    notify_url: str
    return_url: str | None
    status: str = "WAIT_BUYER_PAY"
    refunded: int = 0
    gmt_create: str
    gmt_payment: str | None = None
    gmt_refund: str | None = None
    gmt_close: str | None = None


class Trades:
    """All trades by the seller's number. ``told`` is called with a trade and each notification of it, unsigned, and
    ``moved`` with the trade, the fen that were paid, below zero given back, and the time."""

    def __init__(self, app_id: str, seller_id: str, told: Callable[[Trade, dict[str, str]], None]) -> None:
        self.by_order: dict[str, Trade] = {}
        self._app_id = app_id
        self._seller_id = seller_id
        self._told = told
        self.clock = time.time
        self.moved: Callable[[Trade, int, str], None] = lambda trade, fen, at: None

    def get(self, out_trade_no: str) -> Trade:
        """Raises AlipayRefusal when nobody opened the page of this order."""
        if out_trade_no not in self.by_order:
            raise AlipayRefusal("ACQ.TRADE_NOT_EXIST", "交易不存在")
        return self.by_order[out_trade_no]

    def open(self, order: dict[str, Any], notify_url: str, return_url: str | None) -> Trade:
        """The trade of an order; it begins when its page is opened first. The same order again is the same trade."""
        fen = Decimal(order["total_amount"]).scaleb(2)
        if fen != int(fen) or fen <= 0:
            raise AlipayRefusal("ACQ.INVALID_PARAMETER", "total_amount")
        trade = self.by_order.get(order["out_trade_no"])
        if trade is None:
            trade = Trade(
                trade_no=f"{self.now()[:10].replace('-', '')}22001{secrets.randbelow(10**15):015d}",
                out_trade_no=order["out_trade_no"],
                subject=order["subject"],
                fen=int(fen),
                notify_url=notify_url,
                return_url=return_url,
                gmt_create=self.now(),
            )
            self.by_order[trade.out_trade_no] = trade
            self._tell(trade)
        if trade.fen != fen:
            raise AlipayRefusal("ACQ.CONTEXT_INCONSISTENT", "交易信息被篡改")
        return trade

    def pay(self, trade: Trade, *, fen: int | None = None) -> None:
        """The customer pays; ``fen`` is for payments that are not what was asked for."""
        _require(trade, "WAIT_BUYER_PAY")
        trade.fen = trade.fen if fen is None else fen
        trade.status, trade.gmt_payment = "TRADE_SUCCESS", self.now()
        self.moved(trade, trade.fen, trade.gmt_payment)
        self._tell(trade)

    def finish(self, trade: Trade) -> None:
        """Months later: nothing can be refunded any more."""
        _require(trade, "TRADE_SUCCESS")
        trade.status = "TRADE_FINISHED"
        self._tell(trade)

    def refund(self, trade: Trade, fen: int) -> None:
        """Give back a part, or what is left: then the trade is closed."""
        _require(trade, "TRADE_SUCCESS")
        if not 0 < fen <= trade.fen - trade.refunded:
            raise AlipayRefusal("ACQ.REFUND_AMT_NOT_EQUAL_TOTAL", "退款金额超限")
        trade.refunded += fen
        trade.gmt_refund = self.now()
        self.moved(trade, -fen, trade.gmt_refund)
        if trade.refunded == trade.fen:
            trade.status, trade.gmt_close = "TRADE_CLOSED", self.now()
        self._tell(trade)

    def close(self, trade: Trade) -> None:
        """Nobody paid in time."""
        _require(trade, "WAIT_BUYER_PAY")
        trade.status, trade.gmt_close = "TRADE_CLOSED", self.now()
        self._tell(trade)

    def now(self) -> str:
        """The time in Beijing."""
        return (datetime.fromtimestamp(self.clock(), UTC) + BEIJING).strftime("%Y-%m-%d %H:%M:%S")

    def _tell(self, trade: Trade) -> None:
        fields = {
            "notify_id": secrets.token_hex(17),
            "notify_type": "trade_status_sync",
            "notify_time": self.now(),
            "charset": "utf-8",
            "version": "1.0",
            "app_id": self._app_id,
            "seller_id": self._seller_id,
            "buyer_id": "2088102169481075",
            "out_trade_no": trade.out_trade_no,
            "trade_no": trade.trade_no,
            "trade_status": trade.status,
            "total_amount": in_yuan(trade.fen),
            "subject": trade.subject,
            "gmt_create": trade.gmt_create,
        }
        times = {"gmt_payment": trade.gmt_payment, "gmt_refund": trade.gmt_refund, "gmt_close": trade.gmt_close}
        fields |= {name: value for name, value in times.items() if value is not None}
        if trade.refunded:
            fields["refund_fee"] = in_yuan(trade.refunded)
        self._told(trade, fields)


def shown(trade: Trade) -> dict[str, str]:
    """What ``alipay.trade.query`` says of a trade."""
    return {
        "code": "10000",
        "msg": "Success",
        "trade_no": trade.trade_no,
        "out_trade_no": trade.out_trade_no,
        "trade_status": trade.status,
        "total_amount": in_yuan(trade.fen),
        "buyer_user_id": "2088102169481075",
    }


def in_yuan(fen: int) -> str:
    return f"{fen // 100}.{fen % 100:02d}"


def _require(trade: Trade, status: str) -> None:
    if trade.status != status:
        raise AlipayRefusal("ACQ.TRADE_STATUS_ERROR", f"it is {trade.status}")
