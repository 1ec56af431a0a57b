"""Everything that one process does with one application at Alipay, put together."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

import aiohttp
import msgspec

from ledger import Ledger
from payments.alipay.api import PROVIDER, AlipayApi, AlipayConfig
from payments.alipay.booking import AlipayBooking
from payments.alipay.statement import AlipayStatements
from payments.inbox import Inbox
from payments.notifications import NotificationStore


class AlipayRoad(msgspec.Struct, frozen=True, kw_only=True):
    """How money comes in by Alipay."""

    api: AlipayApi
    inbox: Inbox
    statements: AlipayStatements


@asynccontextmanager
async def open_alipay(config: AlipayConfig, ledger: Ledger, clock: Callable[[], datetime]) -> AsyncIterator[AlipayRoad]:
    """The road, until it is left; then what was begun is finished."""
    api = AlipayApi(config, clock)
    inbox = Inbox(NotificationStore(ledger.pool), {PROVIDER: AlipayBooking(ledger, api).book}, clock)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        try:
            yield AlipayRoad(api=api, inbox=inbox, statements=AlipayStatements(api, session, clock))
        finally:
            await inbox.close()
