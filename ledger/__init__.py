"""The books: every event that touches money, limits or prices, and the one way to write one.

A command is submitted, judged by ``decide`` under its account's lock, appended as an event by the group committer,
and folded into the states by ``evolve``. Start reading at ``events.py``. The ledger does not know what a token, a
price or a request is; nothing here imports another room.
"""

from ledger.commands import (
    AdjustBalance,
    ChangePlan,
    CreateKey,
    DeleteKey,
    DrawHold,
    ExpireHold,
    ExtendHold,
    GrantCredit,
    OpenAccount,
    PlaceHold,
    RecordPriceEvent,
    RerateCharge,
    SettleHold,
    VoidHold,
)
from ledger.errors import LedgerCorrupt, LedgerError, LedgerOverloaded, LedgerUnavailable, Refused
from ledger.events import PRICE_BOOK, PriceRef, StoredEvent
from ledger.group import Committed
from ledger.ids import new_id
from ledger.leases import UNREACHABLE, Lease, new_worker_id
from ledger.ledger import Ledger
from ledger.money import Microcents, cents_text, microcents_from_cents, units_text
from ledger.sql import load_queries
from ledger.state import AccountState, HoldState, KeyState
from ledger.sweep import Sweeper

__all__ = [
    "PRICE_BOOK",
    "UNREACHABLE",
    "AccountState",
    "AdjustBalance",
    "ChangePlan",
    "Committed",
    "CreateKey",
    "DeleteKey",
    "DrawHold",
    "ExpireHold",
    "ExtendHold",
    "GrantCredit",
    "HoldState",
    "KeyState",
    "Lease",
    "Ledger",
    "LedgerCorrupt",
    "LedgerError",
    "LedgerOverloaded",
    "LedgerUnavailable",
    "Microcents",
    "OpenAccount",
    "PlaceHold",
    "PriceRef",
    "RecordPriceEvent",
    "Refused",
    "RerateCharge",
    "SettleHold",
    "StoredEvent",
    "Sweeper",
    "VoidHold",
    "cents_text",
    "load_queries",
    "microcents_from_cents",
    "new_id",
    "new_worker_id",
    "units_text",
]
