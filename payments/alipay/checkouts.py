"""A top-up by Alipay from the customer's wish to the page where it is paid.

The wish is committed with the rate of its moment before anybody sees the page, and its id is the order's number: so
there is no payment that was not asked for, and whoever repeats a request comes to the same order, at the same rate.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
import structlog

from accounts import account_of
from ledger import Ledger, RequestTopup, TopupState, cents_text, new_id
from ledger.errors import IdempotencyMismatch
from payments.alipay.amounts import CURRENCY, Wish
from payments.alipay.api import PROVIDER, AlipayApi
from payments.errors import AmountRefused, CurrencyRefused, TopupClosed
from payments.topup_ids import topup_id_of
from pricing import NoExchangeRate

#: Units of the second currency for one of the first at a moment, None when they are the same; see
#: ``PriceBook.exchange_rate``. Raises NoExchangeRate.
ExchangeRate = Callable[[str, str, datetime], Decimal | None]

_log = structlog.get_logger(__name__)


class AlipayCheckout(msgspec.Struct, frozen=True, kw_only=True):
    """An order and its page, which is signed anew each time."""

    topup: TopupState
    url: str


class AlipayCheckouts:
    """Orders at Alipay, between the configured ``minimum`` and ``maximum``, both included."""

    def __init__(
        self, ledger: Ledger, api: AlipayApi, exchange_rate: ExchangeRate, clock: Callable[[], datetime]
    ) -> None:
        self._ledger = ledger
        self._api = api
        self._exchange_rate = exchange_rate
        self._clock = clock

    async def begin(
        self, account_id: str, wish: Wish, *, requested_by: str, idempotency_key: str | None
    ) -> AlipayCheckout:
        """A top-up and the page where it is paid; for the same key the same order.

        Raises AmountRefused, CurrencyRefused, TopupClosed; accounts.AccountNotFound; the ledger's IdempotencyMismatch
        and LedgerUnavailable.
        """
        command = await self._request(account_id, wish, requested_by, idempotency_key)
        try:
            await self._ledger.submit(command)
        except IdempotencyMismatch:
            if not await self._is_the_same_wish(command, wish):
                raise
        topup = await self._ledger.topup(account_id, command.topup_id)
        assert topup is not None  # its request is committed
        if topup.status not in ("requested", "pending"):
            raise TopupClosed(topup.topup_id, topup.status)
        _log.info("topup.requested", account_id=account_id, topup_id=topup.topup_id)
        return AlipayCheckout(topup=topup, url=self._api.page_url(topup.topup_id, topup.asked_amount))

    async def _request(
        self, account_id: str, wish: Wish, requested_by: str, idempotency_key: str | None
    ) -> RequestTopup:
        account = await account_of(self._ledger, account_id)
        now = self._clock()
        try:
            rate = self._exchange_rate(CURRENCY, account.currency, now)
        except NoExchangeRate as error:
            raise CurrencyRefused(f"no rate converts {CURRENCY} into {account.currency}") from error
        offer = wish.at(rate)
        config = self._api.config
        if not config.minimum <= offer.amount <= config.maximum:
            smallest, largest = cents_text(config.minimum), cents_text(config.maximum)
            raise AmountRefused(f"a top-up is from {smallest} to {largest} cents of {account.currency}")
        topup_id = new_id("topup") if idempotency_key is None else topup_id_of(account_id, idempotency_key)
        return RequestTopup(
            stream_id=account_id,
            topup_id=topup_id,
            provider=PROVIDER,
            amount_microcents=offer.amount,
            asked=offer.asked,
            requested_by=requested_by,
            idempotency_key=topup_id,
            exchange_rate=rate,
            rate_source=None if rate is None else f"price book at {now.astimezone(UTC).isoformat()}",
        )

    async def _is_the_same_wish(self, command: RequestTopup, wish: Wish) -> bool:
        """Whether it differs from its first request in nothing but the moment and the rate of it, which stay."""
        topup = await self._ledger.topup(command.stream_id, command.topup_id)
        return topup is not None and topup.provider == PROVIDER and wish.is_that_of(topup)
