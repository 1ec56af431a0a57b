"""A real EVM node, as somebody who has everything in hand."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import msgspec

from payments.usdc.addresses import checksummed
from simulated_chain import token as coin
from simulated_chain.rpc import ask


class DevChain:
    """The node, as who has everything in hand."""

    def __init__(self, url: str, token: str, chain_id: int) -> None:
        self.url = url
        self.token = checksummed(token)
        self.chain_id = chain_id

    async def ask(self, method: str, *parameters: Any) -> Any:
        return await asyncio.to_thread(ask, self.url, method, *parameters)

    async def head(self) -> int:
        return int(await self.ask("eth_blockNumber"), 16)

    async def pay(self, to: str, units: int = 25_000_000, *, token: str | None = None) -> str:
        """A transfer of so many millionths in a block of its own; returns the transaction."""
        return await asyncio.to_thread(coin.mint, self.url, token or self.token, to, units)

    async def send(self, raw: str) -> None:
        """Put a signed transaction into a block of its own."""
        await asyncio.to_thread(coin.receipt_of, self.url, await self.ask("eth_sendRawTransaction", raw))

    async def mine(self, blocks: int) -> None:
        await self.ask("anvil_mine", hex(blocks))

    async def reorganise(self, depth: int, *again: tuple[str, int]) -> None:
        """Replace the newest blocks by others, empty but for the transactions given with the place of their block.

        Blocks that are empty before and after would stay the same: the first of the new ones has a payment to nobody.
        """
        own = {"from": (await self.ask("eth_accounts"))[1], "to": "0x" + "11" * 20, "value": "0x1", "gas": "0x5208"}
        await self.ask("anvil_reorg", depth, [[own, 0], *[list(one) for one in again]])

    async def raw(self, transaction: str) -> str:
        """The transaction as it was signed, for a block of another chain."""
        return str(await self.ask("eth_getRawTransactionByHash", transaction))

    async def other_token(self) -> str:
        """Another contract whose events look the same."""
        return checksummed(await asyncio.to_thread(coin.deploy, self.url))


@asynccontextmanager
async def dev_chain(clock_at: datetime) -> AsyncIterator[DevChain]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "simulated_chain", "--port", "0", "--die-with-parent"),
        *("--timestamp", str(int(clock_at.timestamp()))),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    said = msgspec.json.decode(await process.stdout.readline())
    try:
        yield DevChain(f"http://127.0.0.1:{said['port']}", said["token"], said["chain_id"])
    finally:
        process.terminate()
        await process.wait()
