"""Alipay's bill of a day, as it is downloaded: a zip of files in GBK, of which one has a line for each movement.

Comments begin with ``#``, cells end with tabs, times are Beijing's. The shape is that of the trade bill of
``alipay.data.dataservice.bill.downloadurl.query``. A bill says at its end how many lines it has, so that a part of one
is never taken for the whole.
"""

import csv
import io
import re
import zipfile
import zlib
from datetime import datetime
from decimal import Decimal

import msgspec

from payments.alipay.api import BEIJING, PROVIDER
from payments.errors import ProviderUnavailable

#: Of the files together, unpacked: some millions of lines.
MOST_BYTES = 2**30

PAID, REFUNDED = "交易", "退款"

_TRADE_NO, _KIND, _DONE_AT = "支付宝交易号", "业务类型", "完成时间"
_AMOUNT, _FEE, _REQUEST_NO = "订单金额（元）", "服务费（元）", "退款批次号/请求号"
_END = "业务明细列表结束"
_TOTAL = re.compile(rf"^#({PAID}|{REFUNDED})合计[:：](\d+)笔", re.MULTILINE)


class BillLine(msgspec.Struct, frozen=True, kw_only=True):
    """One movement of a trade."""

    trade_no: str
    kind: str  # 交易, paid; 退款, refunded; others are no business of ours
    done_at: datetime
    yuan: Decimal  # below zero when it was given back
    fee: Decimal  # yuan, above zero; charged for a payment, given back with a refund
    request_no: str  # of a refund, else empty


def read_bill(file: bytes) -> list[BillLine]:
    """All lines of the bill. Raises ProviderUnavailable for what is none, or not whole."""
    try:
        with zipfile.ZipFile(io.BytesIO(file)) as archive:
            if sum(member.file_size for member in archive.infolist()) > MOST_BYTES:
                raise ProviderUnavailable(PROVIDER, f"its bill is larger than {MOST_BYTES} bytes")
            texts = [archive.read(member).decode("gb18030") for member in archive.infolist()]
        details = [text for text in texts if re.search(f"^{_TRADE_NO}", text, re.MULTILINE)]
        if len(details) != 1:
            raise ProviderUnavailable(PROVIDER, f"{len(details)} files of its bill have lines of trades")
        return _lines(details[0])
    except (zipfile.BadZipFile, zlib.error, ValueError, KeyError, ArithmeticError, csv.Error) as error:
        raise ProviderUnavailable(PROVIDER, f"its bill makes no sense: {error!r}") from error


def _lines(text: str) -> list[BillLine]:
    rows = [line for line in text.splitlines() if line and not line.startswith("#")]
    lines = [_line(row) for row in csv.DictReader(rows)]
    if _END not in text:
        raise ProviderUnavailable(PROVIDER, "its bill has no end")
    for kind, count in _TOTAL.findall(text):
        found = sum(line.kind == kind for line in lines)
        if found != int(count):
            raise ProviderUnavailable(PROVIDER, f"its bill has {found} lines of {kind} and says {count}")
    return lines


def _line(row: dict[str, str]) -> BillLine:
    said = {name.strip(): (cell or "").strip() for name, cell in row.items()}
    amount = abs(Decimal(said[_AMOUNT]))
    return BillLine(
        trade_no=said[_TRADE_NO],
        kind=said[_KIND],
        done_at=datetime.strptime(said[_DONE_AT], "%Y-%m-%d %H:%M:%S").replace(tzinfo=BEIJING),
        yuan=-amount if said[_KIND] == REFUNDED else amount,
        # Which sign a fee has differs between bills of Alipay; what it is does not.
        fee=abs(Decimal(said[_FEE] or 0)),
        request_no=said[_REQUEST_NO],
    )
