"""From what Alipay tells to what is booked.

A notification is signed, and all the same it only says that something happened: before anything is credited Alipay is
asked what the trade is now, and its answer is compared with our own order, as the notification was. Notifications come
late, twice and in any order; crediting is keyed on the trade, and refunds are cumulative.
"""

from decimal import Decimal

from ledger import (
    CreditTopup,
    ExpireTopup,
    Ledger,
    MarkTopupPending,
    Paid,
    ReverseTopup,
    TopupOver,
    TopupState,
    load_queries,
)
from payments.alipay.amounts import taken_back
from payments.alipay.api import PROVIDER, AlipayApi, Trade
from payments.alipay.notifications import TradeNotification, read_trade
from payments.errors import Break, NotAtProvider, ProviderUnavailable
from payments.outcomes import Outcome, book

_PAID = ("TRADE_SUCCESS", "TRADE_FINISHED")
_queries = load_queries("payments")


class AlipayBooking:
    """Books notifications. Any number of processes may book the same one at once; each effect happens once."""

    def __init__(self, ledger: Ledger, api: AlipayApi) -> None:
        self._ledger = ledger
        self._api = api

    async def book(self, body: bytes) -> Outcome:
        """Book what a verified notification says.

        Raises Break when it does not fit the books; ProviderUnavailable, ProviderRefused, and ledger.LedgerUnavailable
        or one of ledger.UNREACHABLE when it has to be tried again.
        """
        told = read_trade(body)
        self._require_for_us(told)
        topup = await self._ordered(told)
        match told.trade_status:
            case "TRADE_SUCCESS" | "TRADE_FINISHED":
                return await self._paid(topup, told)
            case "TRADE_CLOSED" if told.gmt_refund is not None:
                return await self._paid(topup, told)
            case "TRADE_CLOSED":
                return await self._closed_unpaid(topup, told)
            case "WAIT_BUYER_PAY":
                return await self._under_way(topup, told)
            case status:
                return Outcome("ignored", f"{topup.topup_id}: {status} moves no money of ours")

    async def _paid(self, topup: TopupState, told: TradeNotification) -> Outcome:
        trade = await self._trade_now(topup, told)
        if trade.trade_status == "TRADE_CLOSED" and told.gmt_refund is None:
            # Credited now, it could be spent before the notification of the refund comes, which credits it by itself.
            return Outcome("ignored", f"{topup.topup_id}: {trade.trade_no} was paid, and given back by now")
        await book(
            self._ledger,
            CreditTopup(
                stream_id=topup.account_id,
                topup_id=topup.topup_id,
                provider=PROVIDER,
                payment_id=trade.trade_no,
                paid=Paid(trade.trans_currency, Decimal(trade.total_amount)),
            ),
        )
        if told.gmt_refund is None:
            return Outcome("processed", f"{topup.topup_id}: credited for {trade.trade_no}")
        return await self._refunded(topup, told)

    async def _refunded(self, topup: TopupState, told: TradeNotification) -> Outcome:
        if told.refund_fee is None:
            raise Break("refund", f"{topup.topup_id}: {told.trade_no} was refunded, and it is not said how much")
        told_of = f"{told.trade_no}: {told.refund_fee} CNY refunded in all"
        await book(
            self._ledger,
            ReverseTopup(
                stream_id=topup.account_id,
                topup_id=topup.topup_id,
                kind="refund",
                total_microcents=taken_back(topup, Decimal(told.refund_fee)),
                reason=told_of,
            ),
        )
        return Outcome("processed", f"{topup.topup_id}: {told_of}")

    async def _closed_unpaid(self, topup: TopupState, told: TradeNotification) -> Outcome:
        try:
            await self._ledger.submit(ExpireTopup(stream_id=topup.account_id, topup_id=topup.topup_id))
        except TopupOver as over:
            if over.status == "credited":
                raise Break(
                    "closed", f"{topup.topup_id}: {told.trade_no} is closed without a refund, but was paid"
                ) from over
            return Outcome("ignored", str(over))
        return Outcome("processed", f"{topup.topup_id}: nobody paid {told.trade_no} in time")

    async def _under_way(self, topup: TopupState, told: TradeNotification) -> Outcome:
        pending = MarkTopupPending(stream_id=topup.account_id, topup_id=topup.topup_id, reference=told.trade_no)
        try:
            await self._ledger.submit(pending)
        except TopupOver as over:  # it came late
            return Outcome("ignored", str(over))
        return Outcome("processed", f"{topup.topup_id}: {told.trade_no} waits for its payer")

    async def _trade_now(self, topup: TopupState, told: TradeNotification) -> Trade:
        """What Alipay itself says of the trade, which has to be what the notification said of it."""
        try:
            trade = await self._api.trade(topup.topup_id)
        except NotAtProvider as missing:
            raise Break("unknown", f"{topup.topup_id}: {missing}") from missing
        if (trade.out_trade_no, trade.trade_no) != (told.out_trade_no, told.trade_no):
            raise Break("trade", f"{topup.topup_id}: told of {told.trade_no}, but its trade is {trade.trade_no}")
        if trade.trade_status not in (*_PAID, "TRADE_CLOSED"):
            raise ProviderUnavailable(
                PROVIDER, f"{trade.trade_no} is {trade.trade_status}, told was {told.trade_status}"
            )
        return trade

    async def _ordered(self, told: TradeNotification) -> TopupState:
        """The top-up that was to be paid. Raises Break when we have not asked for this."""
        shards = list(range(self._ledger.shards))
        account_id = await self._ledger.pool.fetchval(_queries["account_of_topup"], shards, told.out_trade_no)
        topup = None if account_id is None else await self._ledger.topup(account_id, told.out_trade_no)
        if topup is None:
            raise Break("unknown", f"nobody has asked for a top-up {told.out_trade_no}")
        if topup.provider != PROVIDER:
            raise Break("provider", f"{topup.topup_id}: was to be paid by {topup.provider}")
        if Decimal(told.total_amount) != topup.asked_amount:
            raise Break("amount", f"{topup.topup_id}: asked were {topup.asked}, told of {told.total_amount}")
        return topup

    def _require_for_us(self, told: TradeNotification) -> None:
        config = self._api.config
        if told.app_id != config.app_id:
            raise Break("app", f"{told.trade_no}: is of application {told.app_id[:100]!r}")
        if told.seller_id != config.seller_id:
            raise Break("seller", f"{told.trade_no}: was paid to {told.seller_id[:100]!r}")
