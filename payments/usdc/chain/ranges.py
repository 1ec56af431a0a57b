"""How many blocks are asked for at once: as many as the nodes give."""

from collections.abc import Collection

import structlog

from payments.usdc.chain.errors import RangeRefused
from payments.usdc.chain.node import Node
from payments.usdc.deposits import Transfer

_log = structlog.get_logger(__name__)


class Ranges:
    """Reads blocks from first to last, in ranges that are halved when a node refuses them and doubled when it does
    not."""

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._size = largest

    def end(self, first: int, last: int) -> int:
        """Where the range that begins with ``first`` ends."""
        return min(last, first + self._size - 1)

    async def read(self, node: Node, addresses: Collection[str], first: int, last: int) -> tuple[list[Transfer], int]:
        """The transfers of a range that begins with ``first``, and its last block. Raises NodeFailed."""
        while True:
            end = self.end(first, last)
            try:
                found = await node.transfers(addresses, first, end)
            except RangeRefused as refused:
                if end == first:
                    self._size = self._largest  # it is not the range, then
                    raise
                self._size = (end - first + 1) // 2
                _log.info("usdc.range_halved", node=node.name, blocks=self._size, error=str(refused))
            else:
                self._size = min(self._largest, max(self._size, 1) * 2)
                return found, end
