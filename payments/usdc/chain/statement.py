"""The chains' side of a reconciliation: what was sent to our addresses, in blocks that count.

What a chain keeps no books of, it has none of: there are no fees and no payouts, and what was taken back by a
reorganisation is not there any more.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta, tzinfo

from ledger import Ledger
from payments.errors import ProviderUnavailable
from payments.reconciliation import Line, Period, Statement
from payments.reconciliation.ledger_lines import LedgerLines
from payments.usdc.amounts import coins
from payments.usdc.chain.nodes import Nodes, open_nodes
from payments.usdc.chain.transfers import FinalTransfer, final_transfers
from payments.usdc.config import CURRENCY, PROVIDER, Chain


class UsdcStatements:
    """All chains together as a source of reconciliations. Their days are those of UTC."""

    provider = PROVIDER
    zone: tzinfo = UTC
    ready_after = timedelta(hours=1)  # until the last blocks of a day count

    def __init__(self, ledger: Ledger, chains: Sequence[Nodes]) -> None:
        self._ledger = ledger
        self._chains = chains

    async def statement(self, period: Period, *, needed: Period) -> Statement:
        """See ``Source``. Dust is left out, unless it was credited when less was asked for."""
        lines = [line for nodes in self._chains for line in await self._lines(nodes, period, needed)]
        return Statement(lines=lines, commands=[])

    async def _lines(self, nodes: Nodes, period: Period, needed: Period) -> list[Line]:
        await _require_final(nodes, needed.end)
        transfers = await final_transfers(nodes, self._ledger, start=period.start, until=period.end)
        dust = [each.payment_id for each in transfers if each.units < nodes.chain.minimum_units]
        left_out = set(dust) - await LedgerLines(self._ledger).credited(PROVIDER, dust)
        return [_line(each) for each in transfers if each.payment_id not in left_out]


@asynccontextmanager
async def open_statements(chains: Sequence[Chain], ledger: Ledger) -> AsyncIterator[UsdcStatements]:
    """The source, until it is left."""
    async with AsyncExitStack() as stack:
        yield UsdcStatements(ledger, [await stack.enter_async_context(open_nodes(chain)) for chain in chains])


async def _require_final(nodes: Nodes, moment: datetime) -> None:
    """Raises ProviderUnavailable as long as a block before the moment may still come to count.

    A chain in which no block counts yet, because it is new, had nothing before its first.
    """
    view = await nodes.view(at_least=0)
    last = await view.node.block(max(view.confirmed, 0))
    if last is None or last[1] < moment:
        final = "nothing" if last is None else f"what was before {last[1].isoformat()}"
        raise ProviderUnavailable(PROVIDER, f"{nodes.chain.name}: {final} is final")


def _line(transfer: FinalTransfer) -> Line:
    return Line(
        kind="payment",
        reference=transfer.payment_id,
        currency=CURRENCY,
        amount=coins(transfer.units),
        at=transfer.at,
        id=transfer.payment_id,
        account_id=transfer.account_id,
    )
