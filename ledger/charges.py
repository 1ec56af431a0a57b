"""Reading charges back: each settlement and draw with its usage, and what was corrected of it since."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from decimal import Decimal

import asyncpg
import msgspec

from ledger.events import Charge, ChargeRerated, HoldDrawn, PriceRef
from ledger.money import Microcents
from ledger.reading import BATCH, Connection
from ledger.sql import load_queries

_queries = load_queries("ledger")
_decode_charge = msgspec.json.Decoder(Charge, float_hook=Decimal).decode
_decode_terms = msgspec.json.Decoder(tuple[str | None, Decimal | None]).decode
_decode_corrections = msgspec.json.Decoder(tuple[ChargeRerated, ...]).decode


class ChargesAsked(msgspec.Struct, frozen=True, kw_only=True):
    """Which charges are read; None = whatever they have there."""

    start: datetime  # of the charge itself: the end of its request
    until: datetime  # not included
    account_id: str | None = None
    models: Sequence[str] | None = None
    operation: str | None = None
    priced_by: tuple[str, int] | None = None  # program and version, at first; charges that were corrected come anyway


class StoredCharge(msgspec.Struct, frozen=True, kw_only=True):
    """A charge as it stands."""

    position: int
    account_id: str
    currency: str  # of the account
    available_microcents: Microcents  # of the account, at the time of reading
    at: datetime
    event: Charge
    corrections: tuple[ChargeRerated, ...] = ()  # oldest first
    plan: str | None = None  # that its hold was priced for
    exchange_rate: Decimal | None = None  # that its hold was converted at; None = it was in the account's currency

    @property
    def reference(self) -> str | None:
        """Which draw it is; None = the settlement."""
        return self.event.reference if isinstance(self.event, HoldDrawn) else None

    @property
    def amount_microcents(self) -> Microcents:
        return self.corrections[-1].after_microcents if self.corrections else self.event.amount_microcents

    @property
    def prices(self) -> tuple[PriceRef, ...]:
        """The program that priced it, and those that corrected it."""
        return (self.event.price, *(correction.price for correction in self.corrections))


async def charges(connection: Connection, shard: int, asked: ChargesAsked) -> AsyncIterator[list[StoredCharge]]:
    """The charges of a shard in order of position, in batches, through a cursor of the caller's transaction."""
    # After a large re-rating Postgres still believes that there are next to no corrections, and would go through all of
    # them for each charge.
    await connection.execute("SET LOCAL enable_nestloop = off")
    program, version = asked.priced_by or (None, None)
    cursor = await connection.cursor(
        _queries["charges"],
        shard,
        asked.start,
        asked.until,
        asked.account_id,
        asked.models,
        asked.operation,
        program,
        version,
    )
    while batch := await cursor.fetch(BATCH):
        yield [_stored_charge(record) for record in batch]


def _stored_charge(record: asyncpg.Record) -> StoredCharge:
    position, account_id, at, payload, currency, available, corrections, terms = record
    plan, exchange_rate = _decode_terms(terms)
    return StoredCharge(
        position=position,
        account_id=account_id,
        currency=currency,
        available_microcents=available,
        at=at,
        event=_decode_charge(payload),
        corrections=() if corrections is None else _decode_corrections(corrections),
        plan=plan,
        exchange_rate=exchange_rate,
    )
