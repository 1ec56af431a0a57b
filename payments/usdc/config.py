"""What is configured of USDC: the chains that it is taken on, and the key that addresses are derived from."""

import msgspec

PROVIDER = "usdc"
CURRENCY = "USDC"


class Chain(msgspec.Struct, frozen=True, kw_only=True):
    """One chain of the Ethereum kind. ``confirmations`` None: a block counts when the chain calls it finalized."""

    name: str  # in paths and metrics
    chain_id: int  # in the books: a name may change
    token: str  # the contract, checksummed
    rpc_urls: tuple[str, ...]  # asked in this order; they may hold keys
    confirmations: int | None
    minimum_units: int  # of a deposit that is credited, in millionths of a USDC
    agreeing_nodes: int = 1  # that must say the same before anything is credited or taken back
    largest_range: int = 2_000  # blocks that are asked for at once
    look_every_s: float = 5.0
    timeout_s: float = 10.0  # of one question
    webhook_secret: str | None = None  # of the pushes that wake the watcher

    def __repr__(self) -> str:
        return f"Chain(name={self.name!r}, chain_id={self.chain_id})"


class UsdcConfig(msgspec.Struct, frozen=True, kw_only=True):
    """``xpub``: see ``DepositKey``. At least one chain, no two of one id or name."""

    xpub: str
    chains: tuple[Chain, ...]

    def __repr__(self) -> str:
        return f"UsdcConfig(chains={self.chains!r})"

    def chain(self, name: str) -> Chain | None:
        return next((chain for chain in self.chains if chain.name == name), None)
