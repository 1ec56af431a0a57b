"""What Alipay tells: a signed form with the state of one trade."""

from typing import Annotated
from urllib.parse import parse_qsl

import msgspec

from payments.alipay.api import AlipayApi, Id, Yuan
from payments.errors import Break, WebhookRefused

#: Of a body; Alipay's own are about a kilobyte.
MAX_BODY = 64 * 1024
MOST_FIELDS = 200

_Word = Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=r"^[!-~]+$(?!\n)")]


class NotificationHead(msgspec.Struct, frozen=True, kw_only=True):
    """What every notification has. It keeps its id when it comes again."""

    notify_id: Id
    trade_status: _Word = "none"  # WAIT_BUYER_PAY, TRADE_CLOSED, TRADE_SUCCESS, TRADE_FINISHED


class TradeNotification(NotificationHead, frozen=True, kw_only=True):
    """A trade as it was when Alipay wrote. After a refund ``gmt_refund`` and ``refund_fee`` stand in it."""

    app_id: str
    seller_id: str
    trade_no: Id
    out_trade_no: Id
    total_amount: Yuan
    gmt_refund: str | None = None
    refund_fee: Yuan | None = None  # in all, so far


def read_verified(body: bytes, api: AlipayApi) -> NotificationHead:
    """The head of a notification that Alipay signed. Raises WebhookRefused for any other."""
    try:
        fields = _fields(body)
    except ValueError as error:
        raise WebhookRefused("unreadable", f"the body is no notification: {error}") from error
    signature, sign_type = fields.pop("sign", ""), fields.pop("sign_type", "")
    if sign_type != "RSA2" or not api.has_signed(fields, signature):
        raise WebhookRefused("forged", "the signature is missing, or not of this body by Alipay's key with RSA2")
    try:
        return msgspec.convert(fields, NotificationHead)
    except msgspec.ValidationError as error:
        raise WebhookRefused("unreadable", f"the body is no notification: {error}") from error


def read_trade(body: bytes) -> TradeNotification:
    """What a verified notification says of a trade. Raises Break when it says nothing of one."""
    try:
        return msgspec.convert(_fields(body), TradeNotification)
    except ValueError as error:
        raise Break("unreadable", f"it tells of no trade: {error}") from error


def _fields(body: bytes) -> dict[str, str]:
    """Raises ValueError. A field that is there twice could be verified as the one and booked as the other."""
    pairs = parse_qsl(
        body.decode(), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=MOST_FIELDS
    )
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a field is there twice")
    return fields
