"""One look at a chain after the other: what is found, what has left it, and what is booked of it.

A look reads all blocks from where the scan stands to the head. The scan moves on to the last block that counts
(``confirmed``), in the transaction that keeps what was found up to there; the blocks above it are read again in each
look, so that a deposit that was moved or forgotten is seen to be. If the block where the scan stands has left the chain
itself, the scan goes back to the last place where it has not.

Any number of watchers may look at once: what is found is kept once, the scan moves from where it was expected to stand
or not at all, and each booking has one effect.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import structlog

from ledger import Ledger, load_queries
from payments.errors import Break
from payments.metrics import BREAKS
from payments.usdc.addresses import AddressBook
from payments.usdc.booking import DepositBooking, ExchangeRate
from payments.usdc.chain.errors import NodesDisagree
from payments.usdc.chain.metrics import HEAD, LOOKED_AT, OPEN_DEPOSITS, REORGANISATIONS, UNREAD
from payments.usdc.chain.nodes import Nodes, View, open_nodes
from payments.usdc.chain.ranges import Ranges
from payments.usdc.config import PROVIDER, Chain
from payments.usdc.deposits import Block, Deposit, DepositStore, Scan, Transfer

#: Before the first address was assigned; clocks of hosts and of chains differ.
BEFORE_THE_FIRST = timedelta(hours=1)
#: A deposit that has left the chain fails when so many more blocks have not brought it back, where blocks are final.
BLOCKS_TO_RETURN_IN = 64

_queries = load_queries("payments.usdc")
_log = structlog.get_logger(__name__)


class Watcher:
    """Of one chain, in one process."""

    def __init__(
        self, ledger: Ledger, nodes: Nodes, exchange_rate: ExchangeRate, clock: Callable[[], datetime]
    ) -> None:
        self.chain: Chain = nodes.chain
        self._ledger = ledger
        self._nodes = nodes
        self._store = DepositStore(ledger.pool)
        self._booking = DepositBooking(ledger, exchange_rate, clock)
        self._addresses = AddressBook(ledger)
        self._ranges = Ranges(nodes.chain.largest_range)
        self._clock = clock
        self._log = _log.bind(chain=nodes.chain.name)

    async def look_if_due(self) -> bool:
        """Look at the chain if it is time, or somebody was told of something; whether it was.

        Raises payments.ProviderUnavailable when the nodes are away or do not agree, Overtaken, and one of
        ledger.UNREACHABLE or ledger.LedgerUnavailable. All of them are over by themselves.
        """
        every = timedelta(seconds=self.chain.look_every_s)
        scan = await self._store.take_look(self.chain.chain_id, self._clock(), every)
        if scan is None:
            return False
        await self.look(scan)
        return True

    async def look(self, scan: Scan) -> None:
        """Read on, and book. Raises as ``look_if_due``."""
        view = await self._nodes.view(at_least=-1 if scan.confirmed is None else scan.confirmed.number)
        await self._store.note_head(self.chain.chain_id, view.head)
        # The head was read first: whoever has sent coins in one of its blocks had been given the address before.
        await self._addresses.refresh()
        stands = await self._place(scan, view)
        there = await self._read(stands, view)
        await self._find_gone(view, there)
        disagreement = None
        for deposit in await self._store.open(self.chain.chain_id):
            try:
                await self._book(deposit, view)
            except NodesDisagree as of_this_one:  # which must not hold up the others
                disagreement = of_this_one
        await self._measure(view)
        if disagreement is not None:
            raise disagreement

    # --- reading

    async def _place(self, scan: Scan, view: View) -> Block | None:
        """Where the scan stands; the place that it goes back to when its block has left the chain; None: nowhere."""
        stands = scan.confirmed
        if stands is None:
            return await self._begin(view)
        if await self._nodes.agreed_block(stands.number) == stands:
            return stands
        for place in await self._store.remembered(self.chain.chain_id):
            if await self._nodes.agreed_block(place.number) == place:
                break
        else:
            raise NodesDisagree(self.chain.name, "none of the blocks that were read is on the chain: another chain?")
        self._log.error("usdc.reorganised_deep", was=stands.number, hash=stands.hash, back_to=place.number)
        await self._store.go_back(self.chain.chain_id, stands, place, view.head)
        return place

    async def _begin(self, view: View) -> Block | None:
        """The place before the first address was assigned; None while there is none."""
        first = await self._ledger.pool.fetchval(_queries["first_assignment"], list(range(self._ledger.shards)))
        if first is None:
            return None
        number = min(await self._nodes.last_block_until(view, first - BEFORE_THE_FIRST), view.confirmed)
        block = await self._nodes.agreed_block(max(0, number))
        await self._record([], (None, block))
        return block

    async def _read(self, stands: Block | None, view: View) -> set[tuple[str, int]]:
        """Keep every deposit above the place; returns which there are, by transaction and log index."""
        there: set[tuple[str, int]] = set()
        while stands is not None and stands.number < view.head:
            upto = view.confirmed if stands.number < view.confirmed else view.head
            found, last = await self._read_range(view, stands.number + 1, upto)
            there |= {(transfer.tx_hash, transfer.log_index) for transfer in found}
            if last.number <= view.confirmed:
                await self._record(found, (stands, last))
            else:
                await self._record(found, None)
            stands = last
        return there

    async def _read_range(self, view: View, first: int, upto: int) -> tuple[list[Transfer], Block]:
        """A range's transfers and its last block, which did not change meanwhile: then none below it did."""
        end = self._ranges.end(first, upto)
        before = await self._nodes.agreed_block(end)
        found, last = await self._nodes.transfers(view, self._ranges, self._addresses.accounts, first, end)
        after = await self._nodes.agreed_block(last)
        if last == end and after != before:
            raise NodesDisagree(self.chain.name, f"block {last} changed while it was read")
        return found, after

    async def _record(self, found: list[Transfer], move: tuple[Block | None, Block] | None) -> None:
        owned = [(transfer, self._addresses.accounts[transfer.address]) for transfer in found]
        await self._store.record(
            self.chain.chain_id, owned, self._clock(), minimum_units=self.chain.minimum_units, move=move
        )

    async def _find_gone(self, view: View, there: set[tuple[str, int]]) -> None:
        """Mark the deposits that do not count yet and are not there any more, if the chain itself says so."""
        for deposit in await self._store.unsettled(self.chain.chain_id):
            transfer = deposit.transfer
            if transfer.block_number > view.head or (transfer.tx_hash, transfer.log_index) in there:
                continue
            block = await self._nodes.agreed_block(transfer.block_number)
            if block.hash == transfer.block_hash and await self._as_said(transfer, view) is not None:
                # Logs that are left out are no proof that the transfer is gone.
                self._log.warning("usdc.log_missing", payment_id=deposit.payment_id)
                continue
            await self._store.mark_gone(deposit, view.head)
            REORGANISATIONS.labels(self.chain.name, "pending").inc()
            self._log.warning("usdc.reorganised", payment_id=deposit.payment_id)

    # --- booking

    async def _book(self, deposit: Deposit, view: View) -> None:
        """Bring the books to where the deposit is. What the books refuse is a break: it is tried again in each look."""
        try:
            if deposit.gone_at_block is not None:
                await self._book_gone(deposit, deposit.gone_at_block, view)
            elif deposit.transfer.block_number <= view.confirmed:
                await self._require_true(deposit, view)
                await self._booking.credit(deposit)
                await self._store.set_status(deposit, "credited")
            elif deposit.status == "seen":
                await self._booking.expect(deposit)
                await self._store.set_status(deposit, "pending")
        except Break as found:
            if await self._store.set_problem(deposit, f"{found.reason}: {found}"):
                BREAKS.labels(PROVIDER, found.reason).inc()
                self._log.error("payment.broken", reason=found.reason, problem=str(found), payment=deposit.payment_id)

    async def _book_gone(self, deposit: Deposit, gone_at_block: int, view: View) -> None:
        if await self._booking.is_credited(deposit):
            if await self._as_said(deposit.transfer, view) is not None:
                return  # another watcher goes back, and will find it again
            await self._booking.reverse(deposit)
            REORGANISATIONS.labels(self.chain.name, "credited").inc()
            await self._store.set_status(deposit, "reversed")
        elif view.head >= gone_at_block + (self.chain.confirmations or BLOCKS_TO_RETURN_IN):
            await self._booking.fail(deposit)
            await self._store.set_status(deposit, "failed")

    async def _require_true(self, deposit: Deposit, view: View) -> None:
        """Raises Break when the nodes that have to agree do not have it as it was seen, in a block of the chain."""
        said = await self._as_said(deposit.transfer, view)
        if said != deposit.transfer:
            raise Break("chain", f"{deposit.payment_id} was seen as {deposit.transfer}, and the chain has {said}")

    async def _as_said(self, transfer: Transfer, view: View) -> Transfer | None:
        """The transfer as its transaction's receipt has it, at as many nodes as have to agree."""
        return await self._nodes.agreed_transfer(transfer.tx_hash, transfer.log_index, view)

    async def _measure(self, view: View) -> None:
        scan = (await self._store.scans())[self.chain.chain_id]
        read_to = view.confirmed if scan.confirmed is None else scan.confirmed.number
        HEAD.labels(self.chain.name).set(view.head)
        UNREAD.labels(self.chain.name).set(max(0, view.confirmed - read_to))
        LOOKED_AT.labels(self.chain.name).set(self._clock().timestamp())
        OPEN_DEPOSITS.labels(self.chain.name).set(len(await self._store.open(self.chain.chain_id)))


@asynccontextmanager
async def open_watcher(
    chain: Chain, ledger: Ledger, exchange_rate: ExchangeRate, clock: Callable[[], datetime]
) -> AsyncIterator[Watcher]:
    """The watcher of a chain, until it is left. The chain is due at once."""
    async with open_nodes(chain) as nodes:
        await DepositStore(ledger.pool).begin(chain.chain_id, clock())
        yield Watcher(ledger, nodes, exchange_rate, clock)
