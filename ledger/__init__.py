"""The books: every event that touches money, limits or prices, and the one way to write one.

A command is submitted, judged by ``decide`` under its account's lock, appended as an event by the group committer,
and folded into the states by ``evolve``. Start reading at ``events.py``. The ledger does not know what a token, a
price or a request is; nothing here imports another room.
"""

from ledger.commands import (
    AdjustBalance,
    AssignDepositAddress,
    ChangeAutomaticTopup,
    ChangePlan,
    CreateKey,
    CreditTopup,
    DeleteKey,
    DrawHold,
    ExpireGrant,
    ExpireHold,
    ExpireTopup,
    ExtendHold,
    FailTopup,
    GrantCredit,
    MarkTopupPending,
    OpenAccount,
    PlaceHold,
    RecordPriceEvent,
    ReinstateTopup,
    RequestTopup,
    RerateCharge,
    ReverseTopup,
    SettleHold,
    VoidHold,
)
from ledger.errors import (
    LedgerCorrupt,
    LedgerError,
    LedgerOverloaded,
    LedgerUnavailable,
    Refused,
    TopupMismatch,
    TopupNotCredited,
    TopupOver,
    TopupUnknown,
)
from ledger.events import LAST_PRIORITY, PRICE_BOOK, PRIORITY, AutomaticTopup, Paid, PriceRef, StoredEvent
from ledger.expiry import expire_grants
from ledger.grants import Grant
from ledger.group import Committed
from ledger.ids import new_id
from ledger.leases import UNREACHABLE, Lease, new_worker_id
from ledger.ledger import Ledger
from ledger.money import Microcents, cents_text, microcents_from_cents, units_text
from ledger.providers import (
    ChargeProcessorFee,
    FailPayout,
    InitiatePayout,
    PayPayout,
    ResolveBreak,
    provider_stream,
)
from ledger.sql import load_queries
from ledger.state import AccountState, HoldState, KeyState, TopupState
from ledger.sweep import Sweeper

__all__ = [
    "LAST_PRIORITY",
    "PRICE_BOOK",
    "PRIORITY",
    "UNREACHABLE",
    "AccountState",
    "AdjustBalance",
    "AssignDepositAddress",
    "AutomaticTopup",
    "ChangeAutomaticTopup",
    "ChangePlan",
    "ChargeProcessorFee",
    "Committed",
    "CreateKey",
    "CreditTopup",
    "DeleteKey",
    "DrawHold",
    "ExpireGrant",
    "ExpireHold",
    "ExpireTopup",
    "ExtendHold",
    "FailPayout",
    "FailTopup",
    "Grant",
    "GrantCredit",
    "HoldState",
    "InitiatePayout",
    "KeyState",
    "Lease",
    "Ledger",
    "LedgerCorrupt",
    "LedgerError",
    "LedgerOverloaded",
    "LedgerUnavailable",
    "MarkTopupPending",
    "Microcents",
    "OpenAccount",
    "Paid",
    "PayPayout",
    "PlaceHold",
    "PriceRef",
    "RecordPriceEvent",
    "Refused",
    "ReinstateTopup",
    "RequestTopup",
    "RerateCharge",
    "ResolveBreak",
    "ReverseTopup",
    "SettleHold",
    "StoredEvent",
    "Sweeper",
    "TopupMismatch",
    "TopupNotCredited",
    "TopupOver",
    "TopupState",
    "TopupUnknown",
    "VoidHold",
    "cents_text",
    "expire_grants",
    "load_queries",
    "microcents_from_cents",
    "new_id",
    "new_worker_id",
    "provider_stream",
    "units_text",
]
