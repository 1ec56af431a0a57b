"""The price book as a gate process follows it."""

import asyncio
from typing import Any

import pytest
import structlog

from inference_proxy.prices import PriceFeed
from ledger import PRICE_BOOK, Ledger, RecordPriceEvent
from ledger.events import ProgramAssigned
from pricing.publishing import assign, publish
from tests.conftest import Clock

PROGRAM = 'id = "p"\ncurrency = "USD"\n[[charges]]\nname = "tokens"\nmeter = "input_tokens"\nprice = 1\n'


class Log:
    """A log of which the first line can be waited for."""

    def __init__(self) -> None:
        self.told = asyncio.Event()
        self.events: list[str] = []
        structlog.configure(processors=[self._take])

    def _take(self, logger: Any, method: str, entry: Any) -> Any:
        self.events.append(entry["event"])
        self.told.set()
        raise structlog.DropEvent


def assignment(clock: Clock, program: str) -> ProgramAssigned:
    return ProgramAssigned(program=program, version=1, model="m", effective_from=clock(), assigned_by="anna")


@pytest.mark.money_bug(41)
async def test_a_price_event_that_cannot_be_is_told_and_the_prices_before_it_stay(ledger: Ledger, clock: Clock) -> None:
    await publish(ledger, PROGRAM, published_by="anna")
    await assign(ledger, assignment(clock, "p"), now=clock())
    feed = PriceFeed(ledger)
    await feed.refresh()
    broken = assignment(clock, "never-published")
    await ledger.submit(RecordPriceEvent(stream_id=PRICE_BOOK, event=broken, idempotency_key="broken"))

    log = Log()
    following, told = asyncio.create_task(feed.follow()), asyncio.create_task(log.told.wait())
    ended, _ = await asyncio.wait({following, told}, timeout=30, return_when=asyncio.FIRST_COMPLETED)
    following.cancel()
    told.cancel()
    await asyncio.gather(following, told, return_exceptions=True)

    assert feed.book.resolve(model="m", operation="chat", at=clock()).ref.program == "p"
    assert ended == {told}
    assert log.events == ["prices.not_refreshed"]
