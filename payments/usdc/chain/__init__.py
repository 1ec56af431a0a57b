"""Chains as they are: nodes that are asked, and the watcher that books what they say. For the background process alone.

``node.py`` is all that is known of web3, ``nodes.py`` is which node is believed, ``watcher.py`` what is made of it, and
``transfers.py`` gives what is final, and ``statement.py`` holds the books against it. Start reading at ``watcher.py``.
"""

from payments.usdc.chain.nodes import open_nodes
from payments.usdc.chain.statement import UsdcStatements, open_statements
from payments.usdc.chain.transfers import FinalTransfer, final_transfers
from payments.usdc.chain.watcher import Watcher, open_watcher

__all__ = [
    "FinalTransfer",
    "UsdcStatements",
    "Watcher",
    "final_transfers",
    "open_nodes",
    "open_statements",
    "open_watcher",
]
