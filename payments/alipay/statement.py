"""Alipay's side of a reconciliation: the bills of its days, and what is booked of their fees.

Its bills of trades say nothing of money that goes to a bank, so that there are no payouts of Alipay in the books.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta, tzinfo

import aiohttp

from ledger import ChargeProcessorFee, Microcents, provider_stream
from ledger.money import MICROCENTS_PER_UNIT
from ledger.providers import ProviderCommand
from payments.alipay.amounts import CURRENCY
from payments.alipay.api import BEIJING, PROVIDER, AlipayApi
from payments.alipay.bills import PAID, REFUNDED, BillLine, read_bill
from payments.errors import NotAtProvider, ProviderUnavailable
from payments.reconciliation.lines import Line, LineKind, Period, Statement

#: Of one download.
TIMEOUT_S = 60
#: Of a zip; see ``bills.MOST_BYTES``.
MOST_BYTES = 128 * 2**20

_KINDS: dict[str, LineKind] = {PAID: "payment", REFUNDED: "refund"}


class AlipayStatements:
    """Alipay as a source of reconciliations. Its days are Beijing's; a bill can be had from nine in the morning on."""

    provider = PROVIDER
    zone: tzinfo = BEIJING
    ready_after = timedelta(hours=10)

    def __init__(self, api: AlipayApi, session: aiohttp.ClientSession, clock: Callable[[], datetime]) -> None:
        self._api = api
        self._session = session
        self._clock = clock

    async def statement(self, period: Period, *, needed: Period) -> Statement:
        """See ``Source``. Days behind the needed ones whose bill is not written yet are left out."""
        bills = [await self._bill(day) for day in self._days(period)]
        lines = [line for bill in bills for line in bill if period.has(line.done_at)]
        return Statement(
            lines=[each for line in lines for each in _lines(line)],
            commands=[command for line in lines for command in _fees(line)],
        )

    def _days(self, period: Period) -> Iterator[date]:
        """Those whose bill is written. The needed ones are over by so much, which the reconciler has seen to."""
        day, now = period.start.astimezone(BEIJING).date(), self._clock()
        while (start := datetime.combine(day, time(), BEIJING)) < period.end:
            if start + timedelta(days=1) + self.ready_after <= now:
                yield day
            day += timedelta(days=1)

    async def _bill(self, day: date) -> list[BillLine]:
        try:
            url = await self._api.bill_url(day)
        except NotAtProvider:  # a day in which nothing was paid has no bill
            return []
        file = bytearray()
        try:
            async with self._session.get(url, timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as answer:
                answer.raise_for_status()
                async for chunk in answer.content.iter_any():
                    file += chunk
                    if len(file) > MOST_BYTES:
                        raise ProviderUnavailable(PROVIDER, f"its bill of {day} is larger than {MOST_BYTES} bytes")
        except (aiohttp.ClientError, TimeoutError) as error:
            raise ProviderUnavailable(PROVIDER, f"its bill of {day} cannot be fetched: {error!r}") from error
        return read_bill(bytes(file))


def _lines(line: BillLine) -> list[Line]:
    kind = _KINDS.get(line.kind, "other")
    id_ = _id(line)
    moved = Line(
        kind=kind,
        reference=id_ if kind == "other" else line.trade_no,
        currency=CURRENCY,
        amount=line.yuan,
        at=line.done_at,
        id=id_,
    )
    if not line.fee:
        return [moved]
    fee = line.fee if line.kind == REFUNDED else -line.fee
    return [moved, Line(kind="fee", reference=id_, currency=CURRENCY, amount=fee, at=line.done_at, id=id_)]


def _fees(line: BillLine) -> list[ProviderCommand]:
    if not line.fee:
        return []
    charged = -line.fee if line.kind == REFUNDED else line.fee
    return [
        ChargeProcessorFee(
            stream_id=provider_stream(PROVIDER),
            reference=_id(line),
            currency=CURRENCY,
            amount_microcents=Microcents(int(charged * MICROCENTS_PER_UNIT)),
            happened_at=line.done_at.astimezone(UTC),
        )
    ]


def _id(line: BillLine) -> str:
    """Alipay numbers trades, and refunds within them."""
    return f"{line.trade_no}:{line.request_no}" if line.request_no else line.trade_no
