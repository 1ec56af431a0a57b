"""The bill of a day: what was paid and refunded in it, as Alipay writes it, in a zip of files in GBK.

The shapes are those of Alipay's trade bill: comments begin with ``#``, cells end with a tab, times are Beijing's, and a
line stands in the bill of the day in which it was done. What a test plants here is in nobody's notifications.
"""

import csv
import io
import secrets
import zipfile
from typing import Final

import msgspec

from simulated_alipay.trades import AlipayRefusal, Trade, in_yuan

#: Of what is paid, in thousandths.
FEE_PER_THOUSAND: Final = 6

_COLUMNS: Final = (
    *("支付宝交易号", "商户订单号", "业务类型", "商品名称", "创建时间", "完成时间", "门店编号", "门店名称", "操作员"),
    *("终端号", "对方账户", "订单金额（元）", "商家实收（元）", "支付宝红包（元）", "集分宝（元）", "支付宝优惠（元）"),
    *("商家优惠（元）", "券核销金额（元）", "券名称", "商家红包消费金额（元）", "卡消费金额（元）"),
    *("退款批次号/请求号", "服务费（元）", "分润（元）", "备注"),
)
_PAID, _REFUNDED = "交易", "退款"


class Movement(msgspec.Struct, kw_only=True):
    """A line of a bill. ``fen`` is below zero when it is given back, and so is the fee when it is charged."""

    trade_no: str
    out_trade_no: str
    kind: str
    done_at: str  # in Beijing
    fen: int
    request_no: str = ""  # of a refund

    @property
    def fee(self) -> int:
        return -self.fen * FEE_PER_THOUSAND // 1000


class Bills:
    """What was moved so far, in order."""

    def __init__(self) -> None:
        self.movements: list[Movement] = []
        self.broken = False  # the next files break off in the middle

    def follow(self, trade: Trade, fen: int, done_at: str) -> None:
        """Keep what was paid, or given back below zero."""
        self.movements.append(
            Movement(
                trade_no=trade.trade_no,
                out_trade_no=trade.out_trade_no,
                kind=_PAID if fen > 0 else _REFUNDED,
                done_at=done_at,
                fen=fen,
                request_no="" if fen > 0 else secrets.token_hex(8),
            )
        )

    def plant(self, fen: int, done_at: str) -> Movement:
        """A payment of no order."""
        planted = Movement(
            trade_no=f"{done_at[:10].replace('-', '')}22001{secrets.randbelow(10**15):015d}",
            out_trade_no=f"unknown_{secrets.token_hex(4)}",
            kind=_PAID,
            done_at=done_at,
            fen=fen,
        )
        self.movements.append(planted)
        return planted

    def forget(self, trade_no: str) -> None:
        """As if nothing of the trade had ever happened."""
        self.movements = [each for each in self.movements if each.trade_no != trade_no]

    def alter(self, trade_no: str, fen: int) -> None:
        """Another amount than was paid."""
        for each in self.movements:
            if each.trade_no == trade_no and each.kind == _PAID:
                each.fen = fen

    def zipped(self, day: str, seller_id: str) -> bytes:
        """The file of a day, ``2026-11-21``. Raises AlipayRefusal when nothing was done in it."""
        rows = [each for each in self.movements if each.done_at.startswith(day)]
        if not rows:
            raise AlipayRefusal("isp.bill_not_exist", "账单不存在")
        detail = _detail(rows, day, seller_id).encode("gbk")
        if self.broken:
            detail = detail[: len(detail) * 2 // 3]
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            name = f"{seller_id}0156_{day.replace('-', '')}_业务明细"
            archive.writestr(f"{name}.csv", detail)
            archive.writestr(
                f"{name}(汇总).csv", "#支付宝业务汇总查询\r\n门店编号,门店名称,交易订单总笔数\r\n".encode("gbk")
            )
        return file.getvalue()


def _detail(rows: list[Movement], day: str, seller_id: str) -> str:
    text = io.StringIO()
    text.write(f"#支付宝业务明细查询\r\n#账号：[{seller_id}0156]\r\n#起始日期：[{day} 00:00:00]\r\n")
    text.write(f"#{'-' * 41}业务明细列表{'-' * 40}\r\n")
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    for each in rows:
        cells = dict.fromkeys(_COLUMNS, "")
        cells |= {"支付宝交易号": each.trade_no, "商户订单号": each.out_trade_no, "业务类型": each.kind}
        cells |= {"商品名称": "额度, 预付", "创建时间": each.done_at, "完成时间": each.done_at}
        cells |= dict.fromkeys(("订单金额（元）", "商家实收（元）"), _signed(each.fen))
        cells |= {"退款批次号/请求号": each.request_no, "服务费（元）": _signed(each.fee)}
        writer.writerow(f"{cell}\t" for cell in cells.values())
    text.write(f"#{'-' * 41}业务明细列表结束{'-' * 36}\r\n")
    for word, kind in (("交易", _PAID), ("退款", _REFUNDED)):
        of_kind = [each for each in rows if each.kind == kind]
        text.write(f"#{word}合计：{len(of_kind)}笔，商家实收共{_signed(sum(each.fen for each in of_kind))}元\r\n")
    return text.getvalue()


def _signed(fen: int) -> str:
    return f"{'-' if fen < 0 else ''}{in_yuan(abs(fen))}"
