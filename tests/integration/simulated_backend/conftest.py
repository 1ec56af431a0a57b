"""The backends that the tests here share."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from tests.integration.simulated_backend.client import (
    Client,
    running_backend,
)


@pytest.fixture(scope="session")
async def backend() -> AsyncIterator[Client]:
    with running_backend("--token-latency-ms", "0", "--context-length", "4096") as (_, url):
        async with aiohttp.ClientSession(url) as session:
            yield Client(url, session)


@pytest.fixture
async def own_backend() -> AsyncIterator[Client]:
    """A backend whose standing faults a test may change."""
    with running_backend("--token-latency-ms", "0") as (_, url):
        async with aiohttp.ClientSession(url) as session:
            yield Client(url, session)
