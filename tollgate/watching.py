"""The watchers of the background process: one for each chain that USDC is taken on.

Only here web3 is imported, and this module only where watching begins: the serving processes are to stay small.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime

from ledger import Ledger
from payments import Chain
from payments.usdc.booking import ExchangeRate
from payments.usdc.chain import Watcher, open_watcher


@asynccontextmanager
async def open_watchers(
    chains: Sequence[Chain], ledger: Ledger, exchange_rate: ExchangeRate, clock: Callable[[], datetime]
) -> AsyncIterator[list[Watcher]]:
    """The watchers, until they are left."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_watcher(chain, ledger, exchange_rate, clock)) for chain in chains]
