"""The demo's chain: an EVM node with a coin that is worth nothing, and the public side of a wallet made for it."""

import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from bip32 import BIP32

from payments import checksummed
from tollgate.demo_simulations import announced_simulation

CONFIRMATIONS = 3


class DemoChain(msgspec.Struct, frozen=True, kw_only=True):
    """It runs."""

    url: str
    token: str
    chain_id: int
    xpub: str

    @property
    def settings(self) -> str:
        """Its part of ``tollgate.toml``."""
        return (
            f'\n[payments.usdc]\nxpub = "{self.xpub}"\n\n[[payments.usdc.chains]]\nname = "demo"\n'
            f'chain_id = {self.chain_id}\ntoken = "{self.token}"\nrpc_urls = ["{self.url}"]\n'
            f"confirmations = {CONFIRMATIONS}\nlook_every_s = 1\n"
        )

    @property
    def paying(self) -> str:
        """The command that sends coins, and makes the blocks that a deposit waits for."""
        return (
            f"{sys.executable} -m simulated_chain.pay --url {self.url} --token {self.token} \\\n"
            f"    --usdc 25 --blocks {CONFIRMATIONS - 1} --to <deposit_address>"
        )


@asynccontextmanager
async def demo_chain() -> AsyncIterator[DemoChain]:
    """The chain, until it is left. Raises SettingsError when the node is not installed."""
    async with announced_simulation("simulated_chain") as said:
        # Nobody needs what is sent there: the private side is forgotten at once.
        wallet = BIP32.from_seed(secrets.token_bytes(32))
        yield DemoChain(
            url=f"http://127.0.0.1:{said['port']}",
            token=checksummed(said["token"]),
            chain_id=said["chain_id"],
            xpub=wallet.get_xpub_from_path("m/44h/60h/0h"),
        )
