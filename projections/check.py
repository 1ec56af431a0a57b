"""One read-only pass over a consistent snapshot that derives everything again and names each difference.

First the log itself (gaps, order, columns against payload), then the states and balances that follow from it, then
the double entry, then the projections. It trusts nothing that is stored but the events.
"""

import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping

import asyncpg
import msgspec

from ledger import LedgerCorrupt, StoredEvent, load_queries
from ledger.events import (
    Charge,
    ChargeRerated,
    HoldDrawn,
    HoldExtended,
    HoldPlaced,
    HoldSettled,
    HoldSettledLate,
    ProgramPublished,
)
from ledger.evolve import evolve
from ledger.grants import taken_by_charge
from ledger.reading import events_after, stored_account, stored_event
from ledger.state import AccountState, Books, HoldState, KeyState, Scope, TopupState
from projections import usage
from projections.rebuild import DERIVED_TABLES

#: Tables that a check does not derive, and why. With DERIVED_TABLES this is the whole schema; a test holds it to that.
NOT_DERIVED: Mapping[str, str] = {
    "events": "the authority itself: checked for gaps, order and arithmetic",
    "log_heads": "checked against the last event of each shard",
    "posting_rules": "written by migrations; every event is checked to balance under them",
    "schema_migrations": "what was applied; checked against the files by every migrate",
    "users": "personal data, not money: can be erased",
    "sessions": "credentials, not money",
    "key_secrets": "credentials and names; what a key may do is an event",
    "service_tokens": "credentials, not money",
    "stored_answers": "answers to requests with an Idempotency-Key: personal data, kept for a day; charges are events",
    "payment_notifications": "what payment providers told us: personal data; what came of it is events",
    "webhook_endpoints": "personal data and credentials, not money",
    "notices": "what accounts were told, for some weeks: sent once, whatever is rebuilt",
    "notice_attempts": "what became of sending it",
    "low_balance_thresholds": "when an account wants to be told, not money",
    "notice_checkpoints": "how far the log was followed for notices: made once, whatever is rebuilt",
    "stripe_customers": "saved cards: personal data; what a card pays is top-ups, which are events",
    "reconciliation_runs": "what was compared with payment providers: can be compared again",
    "reconciliation_breaks": "what such comparisons found; what people say of it is events",
    "usdc_scans": "how far chains were read: they can be read again",
    "usdc_blocks": "places that chains were read to; as above",
    "usdc_deposits": "what was seen on chains: they can be read again; what came of it is events",
    "operator_requests": "what an operator's Idempotency-Key was used for; grants and adjustments are events",
}

_queries = load_queries("projections")


class Finding(msgspec.Struct, frozen=True):
    """One difference between what is stored and what follows from the events."""

    subject: str  # "account acct_…", "position 17", …
    problem: str

    def __str__(self) -> str:
        return f"{self.subject}: {self.problem}"


async def check_books(connection: asyncpg.Connection) -> AsyncIterator[Finding]:
    """All findings of every shard. Reads one snapshot, writes nothing."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        present = [table for table in DERIVED_TABLES if await connection.fetchval("SELECT to_regclass($1)", table)]
        for table in DERIVED_TABLES:
            if table not in present:
                yield Finding(f"table {table}", "is not there; `tollgate rebuild` makes it again")
        for guard in await connection.fetch(_queries["missing_guards"]):
            yield Finding(guard["guard"], "is missing from the database, or switched off")
        for shard in await _shards(connection, ("log_heads", "events", *present)):
            books = Books()
            async for finding in _check_log(connection, shard, books):
                yield finding
            if len(present) < len(DERIVED_TABLES):
                continue
            for finding in await _check_states(connection, shard, books):
                yield finding
            for finding in await _check_postings(connection, shard, books):
                yield finding
            for finding in await _check_usage(connection, shard):
                yield finding


async def _shards(connection: asyncpg.Connection, tables: Iterable[str]) -> list[int]:
    """Every shard that any row claims to belong to."""
    shards: set[int] = set()
    for table in tables:
        shards.update(row["shard"] for row in await connection.fetch(f"SELECT DISTINCT shard FROM {table}"))
    return sorted(shards)


async def _check_log(connection: asyncpg.Connection, shard: int, books: Books) -> AsyncIterator[Finding]:
    head = await connection.fetchval(_queries["head"], shard)
    expected = 1
    async for batch in events_after(connection, shard, after=0, upto=2**62):
        for record in batch:
            if record["position"] != expected:
                yield Finding(f"shard {shard}", f"position {expected} is missing, {record['position']} follows")
            expected = record["position"] + 1
            for problem in _replay(record, books):
                yield Finding(f"position {record['position']}", problem)
    if head != expected - 1:
        yield Finding(f"shard {shard}", f"the log's head says {head}, its last event is {expected - 1}")


def _replay(record: asyncpg.Record, books: Books) -> Iterable[str]:
    """Fold one row into the books, and name what in it does not follow from the rows before."""
    try:
        stored = stored_event(record)
    except msgspec.DecodeError as error:
        yield f"the payload is not an event: {error}"
        return
    event = stored.event
    before = books.scope_of(stored.stream_id, event)
    yield from _check_columns(record, stored, before)
    try:
        after = evolve(before, event, stream_id=stored.stream_id, at=stored.at)
    except LedgerCorrupt as error:
        yield str(error)
        return
    books.put(before, after)
    yield from _check_arithmetic(record, stored, before, after)


def _check_columns(record: asyncpg.Record, stored: StoredEvent, before: Scope) -> Iterable[str]:
    account, event = before.account, stored.event
    seq = 1 if account is None else account.seq + 1
    if stored.seq != seq:
        yield f"{stored.stream_id} has seq {stored.seq} where {seq} follows"
    if account is not None and stored.at < account.at:
        yield f"{stored.stream_id} goes back in time, from {account.at} to {stored.at}"
    if record["type"] != event.__struct_config__.tag:
        yield f"the column type says {record['type']}, the payload {event.__struct_config__.tag}"
    if record["hold_id"] != getattr(event, "hold_id", None):
        yield f"the column hold_id says {record['hold_id']}"
    if isinstance(event, ProgramPublished) and hashlib.sha256(event.text.encode()).hexdigest() != event.digest:
        yield f"program {event.program}@{event.version}: the digest is not of its text"


def _check_arithmetic(record: asyncpg.Record, stored: StoredEvent, before: Scope, after: Scope) -> Iterable[str]:
    account, event = after.account, stored.event
    if account is None:
        return
    balance, held = record["balance_microcents"], record["held_microcents"]
    if balance is not None and balance != account.posted:
        yield f"{account.account_id}: the balance after it says {balance}, the events give {account.posted}"
    if held is not None and held != account.held:
        yield f"{account.account_id}: the held after it says {held}, the events give {account.held}"
    takes = isinstance(event, HoldPlaced | HoldExtended) and event.amount_microcents > 0
    if takes and account.available < 0:
        yield f"{account.account_id}: a hold took the available balance to {account.available}"
    if isinstance(event, ChargeRerated):
        if min(event.charged_microcents, event.refunded_microcents) != 0:
            yield f"hold {event.hold_id}: a correction charges and refunds at once, or less than nothing"
        if event.charged_microcents > 0 and account.available < 0:
            yield f"{account.account_id}: a correction took the available balance to {account.available}"
    if isinstance(event, HoldSettled | HoldSettledLate | HoldDrawn) and before.account is not None:
        yield from _check_grants(event, before.account.as_of(stored.at), before.hold)
    if isinstance(event, HoldSettled | HoldSettledLate) and before.account is not None:
        yield from _check_settlement(event, before.account.as_of(stored.at), before.hold)


def _check_grants(event: Charge, before: AccountState, hold: HoldState | None) -> Iterable[str]:
    if hold is None or isinstance(event, HoldSettledLate):
        due = taken_by_charge(before.grants, event.amount_microcents)
    else:
        due = taken_by_charge(before.grants, event.amount_microcents, placed_at=hold.placed_at, held=hold.held)
    if event.from_grants != due:
        yield f"hold {event.hold_id}: of grants it says {event.from_grants}, those before it give {due}"


def _check_settlement(
    event: HoldSettled | HoldSettledLate, before: AccountState, hold: HoldState | None
) -> Iterable[str]:
    above = event.amount_microcents
    if isinstance(event, HoldSettled):
        above = event.overrun_microcents
        if event.held_microcents + above != event.amount_microcents + event.released_microcents:
            yield f"hold {event.hold_id}: held + overrun is not amount + released"
        if hold is not None and event.price != hold.price:
            yield f"hold {event.hold_id}: settled under another price than it was held under"
    debt = max(above - max(before.available, 0), 0)
    if event.debt_microcents != debt:
        yield f"hold {event.hold_id}: its debt says {event.debt_microcents}, the balance before it gives {debt}"


async def _check_states(connection: asyncpg.Connection, shard: int, books: Books) -> list[Finding]:
    accounts = {r["account_id"]: stored_account(r) for r in await connection.fetch(_queries["stored_accounts"], shard)}
    keys = {r["key_id"]: KeyState(**r) for r in await connection.fetch(_queries["stored_keys"], shard)}
    holds = {r["hold_id"]: HoldState(**r) for r in await connection.fetch(_queries["stored_holds"], shard)}
    topups = {r["topup_id"]: TopupState(**r) for r in await connection.fetch(_queries["stored_topups"], shard)}
    return [
        *_differences("account", accounts, books.accounts),
        *_differences("key", keys, books.keys),
        *_differences("open hold", holds, books.holds),
        *_differences("top-up", topups, books.topups),
    ]


def _differences(
    kind: str, stored: Mapping[str, msgspec.Struct], derived: Mapping[str, msgspec.Struct]
) -> Iterable[Finding]:
    for id_ in sorted(stored.keys() | derived.keys()):
        subject = f"{kind} {id_}"
        if id_ not in derived:
            yield Finding(subject, "is stored, but does not follow from the events")
        elif id_ not in stored:
            yield Finding(subject, "follows from the events, but is not stored")
        elif stored[id_] != derived[id_]:
            for name in stored[id_].__struct_fields__:
                found, expected = getattr(stored[id_], name), getattr(derived[id_], name)
                if found != expected:
                    yield Finding(subject, f"{name} says {found}, the events give {expected}")


async def _check_postings(connection: asyncpg.Connection, shard: int, books: Books) -> list[Finding]:
    findings = [
        Finding(f"position {row['position']}", "its postings do not balance")
        for row in await connection.fetch(_queries["unbalanced_positions"], shard)
    ]
    findings += [
        Finding(f"position {row['position']}", "does not continue the charge that it corrects")
        for row in await connection.fetch(_queries["broken_corrections"], shard)
    ]
    findings += [
        Finding(f"position {row['position']}", "does not follow from the expired hold that it charges")
        for row in await connection.fetch(_queries["broken_late_settlements"], shard)
    ]
    findings += [
        Finding(f"position {row['position']}", "credits a payment that was credited before")
        for row in await connection.fetch(_queries["payments_credited_again"], shard)
    ]
    findings += [
        Finding(f"position {row['position']}", "does not follow from what happened to its payout before")
        for row in await connection.fetch(_queries["broken_payouts"], shard)
    ]
    findings += [
        Finding(f"position {row['position']}", "charges a processor's fee that was charged before")
        for row in await connection.fetch(_queries["fees_charged_again"], shard)
    ]
    posted = {row["account_id"]: row for row in await connection.fetch(_queries["posted_by_account"], shard)}
    for account in books.accounts.values():
        row = posted.get(account.account_id, {"available": 0, "held": 0, "spent": 0, "credited": 0})
        # credited = available + held + spent, with each side summed on its own: events here, postings there. What has
        # lapsed is available on the books until it is taken off them.
        available = account.posted - account.held
        sums = {"available": available, "held": account.held, "spent": account.spent, "credited": account.credited}
        for name, expected in sums.items():
            if row[name] != expected:
                findings.append(
                    Finding(f"account {account.account_id}", f"postings give {name} {row[name]}, events {expected}")
                )
    return findings


async def _check_usage(connection: asyncpg.Connection, shard: int) -> list[Finding]:
    head = await connection.fetchval(_queries["head"], shard) or 0
    checkpoint = await connection.fetchval(_queries["checkpoint"], usage.NAME, shard) or 0
    lines = await connection.fetch(_queries["usage_logs_differences"], shard, checkpoint)
    days = await connection.fetch(_queries["usage_daily_differences"], shard, checkpoint)
    ahead = checkpoint > head  # what is appended next would never be counted
    return [
        *([Finding(f"usage of shard {shard}", f"is said to be at {checkpoint}, the log at {head}")] if ahead else ()),
        *(Finding(f"usage line {row['position']}", f"is only in the {row['side']} rows") for row in lines),
        *(
            Finding(f"usage of {row['account_id']} on {row['day']}, {row['model']}", f"only the {row['side']} sums")
            for row in days
        ),
    ]
