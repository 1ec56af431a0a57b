"""The chain of the tests, and a process of ours that takes payments on it."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest_asyncio

from ledger import Ledger
from tests.conftest import Clock
from tests.integration.payments.conftest import Payer

from .dev_chain import DevChain, dev_chain
from .till import UsdcTill, open_usdc_till


@pytest_asyncio.fixture(scope="session")
async def dev() -> AsyncIterator[DevChain]:
    """A chain of this test process's own, which begins when the clocks of the tests do."""
    async with dev_chain(datetime(2026, 11, 21, 12, 0, tzinfo=UTC)) as chain:
        await chain.mine(20)  # no test's reorganisation reaches the coin itself
        yield chain


@pytest_asyncio.fixture
async def till(ledger: Ledger, clock: Clock, dev: DevChain) -> AsyncIterator[UsdcTill]:
    async with open_usdc_till(ledger, clock, dev) as till:
        yield till


@pytest_asyncio.fixture
async def address(till: UsdcTill, payer: Payer) -> str:
    return await till.address(payer)
