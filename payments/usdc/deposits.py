"""What was seen on chains: the rows of usdc_scans, usdc_blocks and usdc_deposits."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal

import asyncpg
import msgspec

from ledger import load_queries
from ledger.reading import Connection
from payments.errors import PaymentsError

#: Places of a scan that are remembered.
KEPT_BLOCKS = 1_000

Status = Literal["seen", "pending", "credited", "failed", "reversed", "dust"]

_queries = load_queries("payments.usdc")


class Overtaken(PaymentsError):
    """Another watcher has read on in the meantime. Nothing was written."""


class Block(msgspec.Struct, frozen=True):
    number: int
    hash: str


class Transfer(msgspec.Struct, frozen=True, kw_only=True):
    """Coins sent to an address, as a chain has it in a block."""

    tx_hash: str
    log_index: int  # within the block
    block_number: int
    block_hash: str
    address: str  # checksummed
    units: int  # millionths of a USDC


class Scan(msgspec.Struct, frozen=True, kw_only=True):
    """How far a chain was read."""

    chain_id: int
    head: int | None  # None: never
    confirmed: Block | None  # up to and with it everything was found; None: nothing was read yet


class Deposit(msgspec.Struct, frozen=True, kw_only=True):
    """A transfer to an address of an account, and what is booked of it: see ``DepositBooking``."""

    chain_id: int
    transfer: Transfer
    account_id: str
    seen_at: datetime
    gone_at_block: int | None  # the head when its block was found to be gone
    status: Status
    problem: str | None = None

    @property
    def payment_id(self) -> str:
        return payment_id_of(self.chain_id, self.transfer.tx_hash, self.transfer.log_index)


def payment_id_of(chain_id: int, tx_hash: str, log_index: int) -> str:
    """What a deposit is called in the books, as the payment that is credited once."""
    return f"{chain_id}:{tx_hash}:{log_index}"


class DepositStore:
    """Each method is one transaction; when Postgres is away, one of ledger.UNREACHABLE."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    # --- looking

    async def begin(self, chain_id: int, now: datetime) -> None:
        """Have a chain looked at, now for the first time."""
        await self._pool.execute(_queries["begin_scan"], chain_id, now)

    async def take_look(self, chain_id: int, now: datetime, every: timedelta) -> Scan | None:
        """The chain, for the caller to look at; None when that is not due, or somebody else does."""
        row = await self._pool.fetchrow(_queries["take_look"], chain_id, now, every)
        return None if row is None else _scan(row)

    async def wake(self, chain_id: int, now: datetime) -> None:
        """Have a chain looked at without waiting until it is due."""
        await self._pool.execute(_queries["wake"], chain_id, now)

    async def scans(self) -> dict[int, Scan]:
        """By chain id."""
        return {row["chain_id"]: _scan(row) for row in await self._pool.fetch(_queries["scans"])}

    # --- reading on

    async def note_head(self, chain_id: int, head: int) -> None:
        await self._pool.execute(_queries["note_head"], chain_id, head)

    async def record(
        self,
        chain_id: int,
        found: Sequence[tuple[Transfer, str]],
        now: datetime,
        *,
        minimum_units: int,
        move: tuple[Block | None, Block] | None,
    ) -> None:
        """Keep transfers, each with its account, and where the scan stands after them: it moves from the one block to
        the other, or stays. Raises Overtaken when it does not stand there any more.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            rows = [_row(chain_id, transfer, account_id, now, minimum_units) for transfer, account_id in found]
            await connection.executemany(_queries["keep_deposit"], rows)
            if move is not None:
                await _move(connection, chain_id, *move)

    async def go_back(self, chain_id: int, before: Block, place: Block, head: int) -> None:
        """Read again from a place before, because what is above it has left the chain.

        The deposits there are gone until they are found again. That is noted with the place, so that whoever is killed
        in between forgets none. Raises Overtaken.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            await _move(connection, chain_id, before, place)
            await connection.execute(_queries["mark_all_gone"], chain_id, place.number, head)

    async def remembered(self, chain_id: int) -> list[Block]:
        """Where the scan stood, newest first."""
        return [Block(**row) for row in await self._pool.fetch(_queries["remembered_blocks"], chain_id)]

    # --- what is there, and what is booked of it

    async def unsettled(self, chain_id: int) -> list[Deposit]:
        """Deposits that do not count yet, and were there when they were last looked for."""
        return [_deposit(row) for row in await self._pool.fetch(_queries["unsettled_deposits"], chain_id)]

    async def mark_gone(self, deposit: Deposit, head: int) -> None:
        """Its block has left the chain. One that was found in another block in the meantime stays."""
        await self._pool.execute(_queries["mark_gone"], *_key(deposit), deposit.transfer.block_hash, head)

    async def open(self, chain_id: int) -> list[Deposit]:
        """Deposits of which something is left to book, oldest first."""
        return [_deposit(row) for row in await self._pool.fetch(_queries["open_deposits"], chain_id)]

    async def set_status(self, deposit: Deposit, status: Status) -> None:
        """Note what is booked now; if somebody else has noted something else since, the next look finds out what is."""
        await self._pool.execute(_queries["set_status"], *_key(deposit), deposit.status, status)

    async def set_problem(self, deposit: Deposit, problem: str) -> bool:
        """Note why nothing can be booked. Whether that is new."""
        return await self._pool.fetchval(_queries["set_problem"], *_key(deposit), problem) is not None

    # --- for people

    async def of_account(self, account_id: str, limit: int) -> list[Deposit]:
        """Newest first."""
        return [_deposit(row) for row in await self._pool.fetch(_queries["deposits_of_account"], account_id, limit)]

    async def all(self, status: Status | None, limit: int) -> list[Deposit]:
        """Of all accounts and chains, newest first; of this status, where one is named."""
        return [_deposit(row) for row in await self._pool.fetch(_queries["all_deposits"], status, limit)]


async def _move(connection: Connection, chain_id: int, before: Block | None, after: Block) -> None:
    moved = await connection.fetchval(
        _queries["move_scan"], chain_id, None if before is None else before.hash, after.number, after.hash
    )
    if moved is None:
        raise Overtaken(f"chain {chain_id} was read on by another watcher")
    await connection.execute(_queries["forget_blocks"], chain_id, after.number, KEPT_BLOCKS)
    await connection.execute(_queries["remember_block"], chain_id, after.number, after.hash)


def _row(chain_id: int, transfer: Transfer, account_id: str, now: datetime, minimum_units: int) -> tuple[object, ...]:
    status = "seen" if transfer.units >= minimum_units else "dust"
    return (
        *(chain_id, transfer.tx_hash, transfer.log_index, transfer.block_number, transfer.block_hash),
        *(account_id, transfer.address, transfer.units, now, status),
    )


def _key(deposit: Deposit) -> tuple[int, str, int]:
    return deposit.chain_id, deposit.transfer.tx_hash, deposit.transfer.log_index


def _scan(row: asyncpg.Record) -> Scan:
    number, hash_ = row["confirmed_block"], row["confirmed_hash"]
    return Scan(chain_id=row["chain_id"], head=row["head"], confirmed=None if number is None else Block(number, hash_))


def _deposit(row: asyncpg.Record) -> Deposit:
    return Deposit(
        chain_id=row["chain_id"],
        transfer=Transfer(
            tx_hash=row["tx_hash"],
            log_index=row["log_index"],
            block_number=row["block_number"],
            block_hash=row["block_hash"],
            address=row["address"],
            units=int(row["units"]),
        ),
        account_id=row["account_id"],
        seen_at=row["seen_at"],
        gone_at_block=row["gone_at_block"],
        status=row["status"],
        problem=row["problem"],
    )
