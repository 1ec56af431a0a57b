"""A chain of the Ethereum kind without its money: a real EVM node (anvil), with a coin of six decimals on it.

Run it with ``python -m simulated_chain --port 0``; it prints ``{"port": N, "token": "0x…", "chain_id": N}`` when it
listens. ``python -m simulated_chain.pay`` makes coins and sends them. It imports nothing of Tollgate. The node comes by
npm (``make simulated_chain/node_modules``), pinned by ``package-lock.json``; what else it can do (reorganisations,
snapshots, mining) is asked of the node itself, by its own methods.

Map: ``node`` starts anvil; ``rpc`` asks it; ``token`` puts the coin on it, and says how its calls are written.
"""

__all__: list[str] = []
