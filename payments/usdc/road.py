"""Everything that a serving process does with USDC, put together. It speaks to no chain."""

from collections.abc import Callable
from datetime import datetime

import msgspec

from ledger import Ledger
from payments.usdc.addresses import DepositAddresses, DepositKey
from payments.usdc.config import UsdcConfig
from payments.usdc.deposits import DepositStore


class UsdcRoad(msgspec.Struct, frozen=True, kw_only=True):
    """How money comes in by USDC."""

    config: UsdcConfig
    addresses: DepositAddresses
    deposits: DepositStore
    clock: Callable[[], datetime]


def usdc_road(config: UsdcConfig, ledger: Ledger, clock: Callable[[], datetime]) -> UsdcRoad:
    """Raises ValueError when the key is none."""
    return UsdcRoad(
        config=config,
        addresses=DepositAddresses(ledger, DepositKey(config.xpub)),
        deposits=DepositStore(ledger.pool),
        clock=clock,
    )
