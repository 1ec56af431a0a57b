"""Alipay as we ask it: a library for its signatures on the one side, our own types on the other.

Requests are signed with our application's RSA key, answers and notifications with Alipay's; RSA2 is RSA with SHA-256,
and nothing else is taken. Field names are Alipay's own; amounts are yuan with at most two decimals.
"""

import asyncio
import base64
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from http.client import HTTPException
from typing import Annotated, Any, TypeVar

import alipay
import msgspec
from alipay.exceptions import AliPayException, AliPayValidationError
from alipay.utils import AliPayConfig

from ledger import Microcents
from payments.errors import NotAtProvider, ProviderRefused, ProviderUnavailable

PROVIDER = "alipay"
DEFAULT_GATEWAY = "https://openapi.alipay.com/gateway.do"

#: Of one question.
TIMEOUT_S = 10
#: Nobody can pay an order that is older; Alipay closes it and says so.
ORDER_LIVES = "1d"

#: Alipay reads and writes times as they are in Beijing, which keeps one offset all year.
BEIJING = timezone(timedelta(hours=8))

_DONE = "10000"
_BUSY = "20000"
_NOTHING = ("ACQ.TRADE_NOT_EXIST", "isp.bill_not_exist")
_SYSTEM_ERROR = "ACQ.SYSTEM_ERROR"

Asked = TypeVar("Asked")

Yuan = Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,12}(\.[0-9]{1,2})?$(?!\n)")]
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[!-~]+$(?!\n)")]


class Trade(msgspec.Struct, frozen=True, kw_only=True):
    """A payment as Alipay has it now. It begins when the payer opens the page."""

    trade_no: Id
    out_trade_no: Id
    trade_status: str  # WAIT_BUYER_PAY, TRADE_CLOSED, TRADE_SUCCESS, TRADE_FINISHED
    total_amount: Yuan
    trans_currency: str = "CNY"


class _Bill(msgspec.Struct, frozen=True, kw_only=True):
    bill_download_url: Annotated[str, msgspec.Meta(pattern="^https?://")]


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    msg: str = ""
    sub_code: str = ""
    sub_msg: str = ""


class AlipayConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One application at Alipay, and how it is used. A key is PEM, or only the base64 in it, as Alipay shows them."""

    app_id: str
    app_private_key: str
    alipay_public_key: str
    seller_id: str  # whom payers pay
    notify_url: str  # where Alipay tells of payments: ours, as the world reaches it
    minimum: Microcents  # of one top-up
    maximum: Microcents
    return_url: str | None = None  # where a payer comes back to
    product_name: str = "Credit"
    gateway: str = DEFAULT_GATEWAY
    timeout_s: int = TIMEOUT_S

    def __post_init__(self) -> None:
        """Raises ValueError when a key is none, or the private key is a public one."""
        if not _Library(self).app_private_key.has_private():
            raise ValueError("the application's key is a public one")

    def __repr__(self) -> str:
        return f"AlipayConfig(gateway={self.gateway!r}, app_id={self.app_id!r})"


class AlipayApi:
    """What is signed to Alipay, and by it. Nothing here changes anything there."""

    def __init__(self, config: AlipayConfig, clock: Callable[[], datetime]) -> None:
        self.config = config
        self._clock = clock
        self._library = _Library(config)

    def page_url(self, out_trade_no: str, asked: Decimal) -> str:
        """The page where an order is paid. The same order again is the same order, however often it is opened."""
        order = {
            "out_trade_no": out_trade_no,
            "total_amount": f"{asked:f}",
            "subject": self.config.product_name,
            "product_code": "FAST_INSTANT_TRADE_PAY",
            "timeout_express": ORDER_LIVES,
        }
        signed = self._library.client_api(
            "alipay.trade.page.pay",
            order,
            notify_url=self.config.notify_url,
            return_url=self.config.return_url,
            timestamp=self._timestamp(),
        )
        return f"{self.config.gateway}?{signed}"

    async def trade(self, out_trade_no: str) -> Trade:
        """The payment of an order as it is now. Raises NotAtProvider, ProviderRefused, ProviderUnavailable."""
        return await self._answered("alipay.trade.query", {"out_trade_no": out_trade_no}, Trade)

    async def bill_url(self, day: date) -> str:
        """Where the bill of a day in Beijing can be fetched for half a minute. Raises NotAtProvider when it has none,
        ProviderRefused, ProviderUnavailable."""
        about = {"bill_type": "trade", "bill_date": day.isoformat()}
        return (await self._answered("alipay.data.dataservice.bill.downloadurl.query", about, _Bill)).bill_download_url

    def has_signed(self, fields: dict[str, str], signature: str) -> bool:
        """Whether these fields of a notification, without ``sign`` and ``sign_type``, are from Alipay."""
        try:
            return bool(self._library.verify(dict(fields), signature))
        except ValueError:  # no base64
            return False

    async def _answered(self, method: str, about: dict[str, str], kind: type[Asked]) -> Asked:
        said = await asyncio.to_thread(self._asked, method, about)
        try:
            answer = msgspec.convert(said, _Answer)
            problem = f"{answer.code} {answer.msg}: {answer.sub_code} {answer.sub_msg}"
            if answer.code == _BUSY or answer.sub_code == _SYSTEM_ERROR:
                raise ProviderUnavailable(PROVIDER, problem)
            if answer.sub_code in _NOTHING:
                raise NotAtProvider(PROVIDER, problem)
            if answer.code != _DONE:
                raise ProviderRefused(PROVIDER, problem)
            return msgspec.convert(said, kind)
        except msgspec.ValidationError as error:
            raise ProviderUnavailable(PROVIDER, f"its answer makes no sense: {error}") from error

    def _asked(self, method: str, about: dict[str, str]) -> Any:
        """What Alipay answers, its signature checked. Blocks."""
        try:
            return self._library.server_api(method, about, timestamp=self._timestamp())
        except AliPayValidationError as error:
            raise ProviderRefused(PROVIDER, "its answer is not signed with its key") from error
        except AliPayException as error:  # an error that nobody signed: it may be anybody's, and proves nothing
            raise ProviderRefused(PROVIDER, str(error)) from error
        except (
            OSError,
            HTTPException,
            ValueError,
            AttributeError,
        ) as error:  # away, broken off, or no answer of its kind
            raise ProviderUnavailable(PROVIDER, repr(error)) from error

    def _timestamp(self) -> str:
        return self._clock().astimezone(BEIJING).strftime("%Y-%m-%d %H:%M:%S")


class _Library(alipay.AliPay):  # type: ignore[misc]  # it has no annotations
    """The library with a gateway of our choice; its own choice is between Alipay's two."""

    def __init__(self, config: AlipayConfig) -> None:
        super().__init__(
            appid=config.app_id,
            app_private_key_string=_key(config.app_private_key),
            alipay_public_key_string=_key(config.alipay_public_key),
            config=AliPayConfig(timeout=config.timeout_s),
        )
        self._gateway = config.gateway


def _key(text: str) -> bytes:
    text = text.strip()
    return text.encode() if text.startswith("-----BEGIN") else base64.b64decode(text)
