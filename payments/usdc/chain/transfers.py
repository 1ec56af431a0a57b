"""What is final on a chain between two moments, for whoever holds the books against it."""

from datetime import datetime, timedelta

import msgspec

from ledger import Ledger
from payments.usdc.addresses import AddressBook
from payments.usdc.chain.errors import NodeFailed
from payments.usdc.chain.node import Node
from payments.usdc.chain.nodes import Nodes
from payments.usdc.chain.ranges import Ranges
from payments.usdc.config import Chain
from payments.usdc.deposits import Transfer, payment_id_of


class FinalTransfer(msgspec.Struct, frozen=True, kw_only=True):
    """Coins that were sent to one of our addresses, in a block that counts."""

    chain: str
    chain_id: int
    tx_hash: str
    log_index: int
    block_number: int
    at: datetime  # of the block
    address: str
    units: int  # millionths of a USDC
    account_id: str

    @property
    def payment_id(self) -> str:
        """By which the books credit it."""
        return payment_id_of(self.chain_id, self.tx_hash, self.log_index)


async def final_transfers(nodes: Nodes, ledger: Ledger, *, start: datetime, until: datetime) -> list[FinalTransfer]:
    """Every transfer to an address of ours, dust as well, in blocks that count by the chain's setting, with
    ``start`` <= their time < ``until``; as the chain orders them.

    Asked of the chain itself and not of what a watcher has seen. ``nodes``: see ``open_nodes``. Raises
    payments.ProviderUnavailable, and one of ledger.UNREACHABLE.
    """
    view = await nodes.view(at_least=0)
    book = AddressBook(ledger)
    await book.refresh()
    first = await nodes.last_block_until(view, start - timedelta.resolution) + 1
    last = min(view.confirmed, await nodes.last_block_until(view, until))
    found: list[FinalTransfer] = []
    ranges = Ranges(nodes.chain.largest_range)
    while first <= last:
        transfers, read_to = await nodes.transfers(view, ranges, book.accounts, first, last)
        times = {number: await _time_of(view.node, number) for number in {t.block_number for t in transfers}}
        found += [
            _final(nodes.chain, transfer, times[transfer.block_number], book.accounts[transfer.address])
            for transfer in transfers
            if start <= times[transfer.block_number] < until
        ]
        first = read_to + 1
    return sorted(found, key=lambda transfer: (transfer.block_number, transfer.log_index))


async def _time_of(node: Node, number: int) -> datetime:
    said = await node.block(number)
    if said is None:
        raise NodeFailed(node.name, "contradicts", f"it has a log of block {number}, and no such block")
    return said[1]


def _final(chain: Chain, transfer: Transfer, at: datetime, account_id: str) -> FinalTransfer:
    return FinalTransfer(
        chain=chain.name,
        chain_id=chain.chain_id,
        tx_hash=transfer.tx_hash,
        log_index=transfer.log_index,
        block_number=transfer.block_number,
        at=at,
        address=transfer.address,
        units=transfer.units,
        account_id=account_id,
    )
