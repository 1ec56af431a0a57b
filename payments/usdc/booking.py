"""From what was seen of a deposit to what is booked.

::

    seen ─► pending ─► credited ─► reversed ─► credited …
               └─────► failed  ──► credited

What is booked is asked of the ledger first and noted after: whoever is killed in between, or comes second, submits the
same commands again, and each has one effect. A deposit's top-up has an id that follows from the deposit, and is
credited for the deposit alone.
"""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal

import structlog

from accounts import account_of
from ledger import (
    CreditTopup,
    FailTopup,
    Ledger,
    MarkTopupPending,
    ReinstateTopup,
    RequestTopup,
    ReverseTopup,
    TopupOver,
)
from ledger.errors import IdempotencyMismatch
from ledger.money import ZERO
from payments.errors import Break
from payments.outcomes import book
from payments.usdc.amounts import PEG, credit_for, usdc
from payments.usdc.config import PROVIDER
from payments.usdc.deposits import Deposit
from pricing import NoExchangeRate

#: Units of the second currency for one of the first at a moment, None when they are the same; see
#: ``PriceBook.exchange_rate``. Raises NoExchangeRate.
ExchangeRate = Callable[[str, str, datetime], Decimal | None]

_log = structlog.get_logger(__name__)


def topup_id_of(deposit: Deposit) -> str:
    """One top-up for each deposit."""
    return "topup_" + hashlib.sha256(f"{PROVIDER}\0{deposit.payment_id}".encode()).hexdigest()[:26]


class DepositBooking:
    """Books deposits. Any number of watchers may book the same one at once; each effect happens once.

    Every method raises Break when the books refuse it, and ledger.LedgerUnavailable or one of ledger.UNREACHABLE when
    it has to be tried again.
    """

    def __init__(self, ledger: Ledger, exchange_rate: ExchangeRate, clock: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._exchange_rate = exchange_rate
        self._clock = clock

    async def expect(self, deposit: Deposit) -> None:
        """It was seen: a top-up at the rate of this moment, which stays, pending until the deposit is deep enough."""
        topup_id = topup_id_of(deposit)
        if await self._ledger.topup(deposit.account_id, topup_id) is None:
            try:
                await book(self._ledger, await self._request(deposit, topup_id))
            except Break as refused:
                if not isinstance(refused.__cause__, IdempotencyMismatch):  # another watcher asked, at another moment
                    raise
        pending = MarkTopupPending(stream_id=deposit.account_id, topup_id=topup_id, reference=deposit.payment_id)
        try:
            await book(self._ledger, pending)
        except Break as refused:
            if not isinstance(refused.__cause__, TopupOver):  # another watcher was further
                raise

    async def credit(self, deposit: Deposit) -> None:
        """It is deep enough, and true. One that was taken back because its block was gone is given back."""
        await self.expect(deposit)
        account_id, topup_id = deposit.account_id, topup_id_of(deposit)
        await book(
            self._ledger,
            CreditTopup(
                stream_id=account_id,
                topup_id=topup_id,
                provider=PROVIDER,
                payment_id=deposit.payment_id,
                paid=usdc(deposit.transfer.units),
            ),
        )
        topup = await self._ledger.topup(account_id, topup_id)
        if topup is not None and topup.reorganised:
            reason = f"again in block {_block(deposit)}, at {self._clock().astimezone(UTC).isoformat()}"
            await book(
                self._ledger,
                ReinstateTopup(
                    stream_id=account_id,
                    topup_id=topup_id,
                    kind="reorganisation",
                    total_microcents=ZERO,
                    reason=reason,
                ),
            )
        _log.info("usdc.credited", account_id=account_id, topup_id=topup_id, payment_id=deposit.payment_id)

    async def is_credited(self, deposit: Deposit) -> bool:
        """Whether the books say so, which they do before it is noted with the deposit."""
        topup = await self._ledger.topup(deposit.account_id, topup_id_of(deposit))
        return topup is not None and topup.status == "credited"

    async def fail(self, deposit: Deposit) -> None:
        """Its block has left the chain before it counted, and it is in no other one."""
        topup_id = topup_id_of(deposit)
        if await self._ledger.topup(deposit.account_id, topup_id) is None:  # nothing was asked for
            return
        reason = f"block {_block(deposit)} has left the chain, and it is in no other one"
        await book(self._ledger, FailTopup(stream_id=deposit.account_id, topup_id=topup_id, reason=reason))

    async def reverse(self, deposit: Deposit) -> None:
        """Its block has left the chain after it was credited: somebody has to hear of it."""
        topup_id = topup_id_of(deposit)
        topup = await self._ledger.topup(deposit.account_id, topup_id)
        if topup is None:
            raise Break("unknown", f"{deposit.payment_id} was credited, and there is no top-up {topup_id}")
        # The moment makes it the reason of this time: the same block may leave the chain, return, and leave it again.
        reason = f"block {_block(deposit)} has left the chain, at {self._clock().astimezone(UTC).isoformat()}"
        await book(
            self._ledger,
            ReverseTopup(
                stream_id=deposit.account_id,
                topup_id=topup_id,
                kind="reorganisation",
                total_microcents=topup.amount,
                reason=reason,
            ),
        )
        _log.error("usdc.reversed", account_id=deposit.account_id, topup_id=topup_id, reason=reason)

    async def _request(self, deposit: Deposit, topup_id: str) -> RequestTopup:
        account = await account_of(self._ledger, deposit.account_id)
        now = self._clock()
        try:
            rate = self._exchange_rate(PEG, account.currency, now)
        except NoExchangeRate as error:
            raise Break("rate", f"no rate converts {PEG} into {account.currency}") from error
        return RequestTopup(
            stream_id=account.account_id,
            topup_id=topup_id,
            provider=PROVIDER,
            amount_microcents=credit_for(deposit.transfer.units, rate),
            asked=usdc(deposit.transfer.units),
            requested_by=PROVIDER,
            idempotency_key=topup_id,
            exchange_rate=rate,
            rate_source=None if rate is None else f"price book at {now.astimezone(UTC).isoformat()}",
        )


def _block(deposit: Deposit) -> str:
    return f"{deposit.transfer.block_number} {deposit.transfer.block_hash}"
