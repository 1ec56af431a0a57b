"""The demo that the acceptance tests share, and customers of it.

The tests see the program only from outside. One demo serves all tests that leave it as it was; those that kill its
processes or spoil its tables take a demo of their own.
"""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.acceptance.customers import Customer, new_customer
from tests.acceptance.running_demo import RunningDemo, place_for_demo


@pytest_asyncio.fixture(scope="session")
async def demo() -> AsyncIterator[RunningDemo]:
    """A demo with four workers. At the end its books are in order, and Ctrl-C leaves nothing behind."""
    async with place_for_demo() as directory:
        demo = await RunningDemo.start(directory)
        try:
            yield demo
            await demo.assert_books_in_order()
            assert "Traceback" not in demo.output
            assert await demo.stop() == 0
            assert directory.processes() == []
            assert directory.leavings() == []
        finally:
            await demo.kill()


@pytest_asyncio.fixture
async def customer(demo: RunningDemo) -> Customer:
    """Somebody with one dollar and a key without limits."""
    return await new_customer(demo)


async def breakable_demo() -> AsyncIterator[RunningDemo]:
    """A demo for the tests of one module, which may do to it what they like."""
    async with place_for_demo() as directory:
        demo = await RunningDemo.start(directory)
        try:
            yield demo
        finally:
            await demo.kill()
