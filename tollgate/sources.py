"""The providers whose own books ours can be compared with."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ledger import Ledger
from payments import PaymentsConfig, Roads
from payments.reconciliation import Source


@asynccontextmanager
async def open_sources(config: PaymentsConfig, roads: Roads, ledger: Ledger) -> AsyncIterator[dict[str, Source]]:
    """By provider, until they are left; those that are not configured are not there."""
    if config.usdc is None:
        yield roads.sources
        return
    from payments.usdc.chain import open_statements  # brings web3, which no serving process imports

    async with open_statements(config.usdc.chains, ledger) as statements:
        yield {**roads.sources, "usdc": statements}
