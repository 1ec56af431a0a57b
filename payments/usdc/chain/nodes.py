"""The nodes of a chain, and which of them is believed.

As many read the logs as have to agree, and what any of them has is looked into. What money is moved on has to be said
by ``agreeing_nodes`` of them.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TypeVar

import msgspec
import structlog

from payments.usdc.chain.errors import NodeFailed, NodesDisagree
from payments.usdc.chain.metrics import NODE_FAILURES
from payments.usdc.chain.node import Node
from payments.usdc.chain.ranges import Ranges
from payments.usdc.config import Chain
from payments.usdc.deposits import Block, Transfer

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class View(msgspec.Struct, frozen=True):
    """A chain as it is seen."""

    nodes: tuple[Node, ...]  # those that have all of it, at least as many as have to agree
    head: int
    confirmed: int  # a deposit in this block or below counts; -1: none does yet

    @property
    def node(self) -> Node:
        """One of them, for questions of which nothing is booked."""
        return self.nodes[0]


class Nodes:
    """Of one chain."""

    def __init__(self, chain: Chain, nodes: list[Node]) -> None:
        self.chain = chain
        self.nodes = nodes

    async def view(self, *, at_least: int) -> View:
        """The chain as far as ``agreeing_nodes`` of its nodes have come; so neither a node that lags nor one that says
        that it is far ahead counts for more than it is.

        Raises NodesDisagree when so many do not answer, or are behind the block ``at_least``: they know less than we
        do, and are no proof that the chain went back.
        """
        asked = await asyncio.gather(*[self._outlook(node) for node in self.nodes])
        outlooks = [outlook for outlook in asked if outlook is not None]
        enough = self.chain.agreeing_nodes
        if len(outlooks) < enough:
            raise NodesDisagree(self.chain.name, f"only {len(outlooks)} of its nodes answer")
        head = sorted((outlook.head for outlook in outlooks), reverse=True)[enough - 1]
        confirmed = sorted((outlook.confirmed for outlook in outlooks), reverse=True)[enough - 1]
        if head < at_least:
            raise NodesDisagree(self.chain.name, f"its nodes are at block {head}, and we are at {at_least}")
        nodes = tuple(outlook.node for outlook in outlooks if outlook.head >= head)
        return View(nodes, head, min(confirmed, head))

    async def agreed(self, question: Callable[[Node], Awaitable[T]]) -> T:
        """What as many nodes say as have to agree. Raises NodesDisagree when not so many do."""
        said: list[T] = []
        for node in self.nodes:
            try:
                await node.require_chain()
                said.append(await question(node))
            except NodeFailed as error:
                self._failed(error)
                continue
            if said.count(said[-1]) >= self.chain.agreeing_nodes:
                return said[-1]
        raise NodesDisagree(self.chain.name, f"{self.chain.agreeing_nodes} nodes have to agree, said was {said!r}")

    async def agreed_block(self, number: int) -> Block:
        """The chain's block of this number, which is not above the view's head. A node that has none is behind."""

        async def ask(node: Node) -> Block:
            said = await node.block(number)
            if said is None:
                raise NodeFailed(node.name, "lagging", f"has no block {number} yet")
            return said[0]

        return await self.agreed(ask)

    async def agreed_transfer(self, tx_hash: str, log_index: int, view: View) -> Transfer | None:
        """A transfer as its transaction's receipt has it; None when it has none. Who is behind cannot say that."""

        async def ask(node: Node) -> Transfer | None:
            said = await node.transfer(tx_hash, log_index)
            if said is None and (head := await node.head()) < view.head:
                raise NodeFailed(node.name, "lagging", f"is at block {head}, and the chain at {view.head}")
            return said

        return await self.agreed(ask)

    async def transfers(
        self, view: View, ranges: Ranges, addresses: Collection[str], first: int, last: int
    ) -> tuple[list[Transfer], int]:
        """What as many nodes as have to agree, each by itself, give of a range that begins with ``first``, and its last
        block. Nodes leave out what they have not indexed yet: a transfer is missed only when all of them do.

        Raises NodesDisagree when not so many answer.
        """
        found: dict[Transfer, None] = {}  # as a set in order
        answered = 0
        for node in view.nodes:
            try:
                more, last = await ranges.read(node, addresses, first, last)
            except NodeFailed as error:
                self._failed(error)
                continue
            found |= dict.fromkeys(more)
            answered += 1
            if answered == self.chain.agreeing_nodes:
                return [transfer for transfer in found if transfer.block_number <= last], last
        raise NodesDisagree(self.chain.name, f"only {answered} of its nodes give logs")

    async def last_block_until(self, view: View, moment: datetime) -> int:
        """The number of the last block that is not after the moment; -1 when all are. By halves."""
        low, high = -1, view.head + 1
        while low + 1 < high:
            middle = (low + high) // 2
            said = await view.node.block(middle)
            if said is None:
                raise NodeFailed(view.node.name, "senseless", f"has no block {middle}, and its head is {view.head}")
            low, high = (middle, high) if said[1] <= moment else (low, middle)
        return low

    async def _outlook(self, node: Node) -> View | None:
        """The chain as one node sees it; None when it does not answer."""
        try:
            await node.require_chain()
            head = await node.head()
            return View((node,), head, await self._confirmed(node, head))
        except NodeFailed as error:
            self._failed(error)
            return None

    async def _confirmed(self, node: Node, head: int) -> int:
        if self.chain.confirmations is not None:
            return max(-1, head - self.chain.confirmations + 1)
        final = await node.block("finalized")
        return -1 if final is None else final[0].number

    def _failed(self, error: NodeFailed) -> None:
        NODE_FAILURES.labels(self.chain.name, error.node, error.reason).inc()
        _log.warning("usdc.node_failed", chain=self.chain.name, reason=error.reason, error=str(error))


@asynccontextmanager
async def open_nodes(chain: Chain) -> AsyncIterator[Nodes]:
    """The nodes, until they are left."""
    nodes = [Node(chain, url) for url in chain.rpc_urls]
    try:
        yield Nodes(chain, nodes)
    finally:
        for node in nodes:
            await node.close()
