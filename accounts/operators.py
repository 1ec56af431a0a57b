"""What operators do to an account and see of it: one place for the HTTP handlers and the command line."""

import hashlib
import re
from collections.abc import Callable
from datetime import datetime
from typing import TypeAlias

import msgspec
import structlog

from accounts.errors import AccountNotFound, IdempotencyKeyReused
from accounts.tables import Tables, answered
from ledger import (
    PRIORITY,
    AccountState,
    AdjustBalance,
    ChangePlan,
    Committed,
    GrantCredit,
    Ledger,
    Microcents,
    OpenAccount,
    new_id,
)

#: Anything else is no account, whatever stream of the log may have that name: the price book is one, without money.
_ACCOUNT_ID = re.compile(r"acct_[0-9A-Za-z_-]{1,59}")
_CURRENCY = re.compile(r"[A-Z]{3}")

_Booking: TypeAlias = GrantCredit | AdjustBalance | ChangePlan

_log = structlog.get_logger(__name__)
_encode = msgspec.json.Encoder(order="deterministic").encode


async def open_account(ledger: Ledger, *, currency: str) -> AccountState:
    """A new account in this currency, for ever. Raises ValueError when it is no ISO 4217 code; LedgerUnavailable."""
    if not _CURRENCY.fullmatch(currency):
        raise ValueError(f"{currency!r} is no currency: three capital letters, as in ISO 4217")
    committed = await ledger.submit(OpenAccount(stream_id=new_id("acct"), currency=currency))
    _log.info("account.opened", account_id=committed.account.account_id, currency=currency)
    return committed.account


async def account_of(ledger: Ledger, account_id: str) -> AccountState:
    """The account's state now. Raises AccountNotFound, LedgerUnavailable."""
    state = await answered(ledger.account(account_id)) if _ACCOUNT_ID.fullmatch(account_id) else None
    if state is None:
        raise AccountNotFound(account_id)
    return state


class Operators:
    """The commands of operators. Each is carried out once per idempotency key, however often it is repeated."""

    def __init__(self, ledger: Ledger, *, clock: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._tables = Tables(ledger.pool)
        self._clock = clock

    async def grant(
        self,
        account_id: str,
        *,
        amount: Microcents,
        reason: str,
        granted_by: str,
        idempotency_key: str,
        expires_at: datetime | None = None,
        priority: int = PRIORITY,
    ) -> Committed:
        """Give credit, which is spent before paid money; ``expires_at`` None = never.

        Raises AccountNotFound, IdempotencyKeyReused, the ledger's InvalidAmount, InvalidGrant and TooManyGrants;
        LedgerUnavailable.
        """
        command = GrantCredit(
            stream_id=account_id,
            amount_microcents=amount,
            reason=reason,
            granted_by=granted_by,
            idempotency_key=idempotency_key,
            expires_at=expires_at,
            priority=priority,
        )
        return await self._submit_once(command, "credit.granted")

    async def adjust(
        self, account_id: str, *, amount: Microcents, reason: str, adjusted_by: str, idempotency_key: str
    ) -> Committed:
        """Correct the balance, up or down. Raises as ``grant``, and InsufficientFunds below what is available."""
        command = AdjustBalance(
            stream_id=account_id,
            amount_microcents=amount,
            reason=reason,
            adjusted_by=adjusted_by,
            idempotency_key=idempotency_key,
        )
        return await self._submit_once(command, "balance.adjusted")

    async def change_plan(
        self, account_id: str, *, plan: str | None, changed_by: str, idempotency_key: str
    ) -> Committed:
        """Price the account's next requests for another plan; None = the list price. Raises as ``grant``."""
        command = ChangePlan(stream_id=account_id, plan=plan, changed_by=changed_by, idempotency_key=idempotency_key)
        return await self._submit_once(command, "plan.changed")

    async def _submit_once(self, command: _Booking, done: str) -> Committed:
        await account_of(self._ledger, command.stream_id)
        await self._bind(command)
        committed = await self._ledger.submit(command)
        if not committed.replayed:
            _log.info(done, account_id=command.stream_id, position=committed.stored.position)
        return committed

    async def _bind(self, command: _Booking) -> None:
        """Bind the key to this request, over all accounts: the ledger sees one account only."""
        request_hash = hashlib.sha256(_encode(command)).digest()
        await self._tables.run("bind_idempotency_key", command.idempotency_key, request_hash, self._clock())
        if await self._tables.value("bound_request", command.idempotency_key) != request_hash:
            raise IdempotencyKeyReused(command.idempotency_key)
