"""Reads what stands in the database, past the code under test where that is possible."""

from typing import Any

import asyncpg

from ledger.evolve import evolve
from ledger.reading import stored_account, stored_event
from ledger.state import Books, HoldState, KeyState, TopupState


async def stored_books(db: asyncpg.Connection) -> Books:
    """The states as they are stored."""
    books = Books()
    for record in await db.fetch("SELECT * FROM account_states"):
        books.accounts[record["account_id"]] = stored_account(_without_shard(record))
    for record in await db.fetch("SELECT * FROM key_states"):
        books.keys[record["key_id"]] = KeyState(**_without_shard(record))
    for record in await db.fetch("SELECT * FROM open_holds"):
        books.holds[record["hold_id"]] = HoldState(**_without_shard(record))
    for record in await db.fetch("SELECT * FROM topup_states"):
        books.topups[record["topup_id"]] = TopupState(**_without_shard(record))
    return books


async def folded_books(db: asyncpg.Connection) -> Books:
    """The states that follow from the stored events."""
    books = Books()
    for record in await db.fetch("SELECT * FROM events ORDER BY shard, position"):
        stored = stored_event(record)
        before = books.scope_of(stored.stream_id, stored.event)
        books.put(before, evolve(before, stored.event, stream_id=stored.stream_id, at=stored.at))
    return books


def differences(stored: Books, folded: Books) -> list[str]:
    """Where two books are not the same."""
    found = []
    for kind in ("accounts", "keys", "holds", "topups"):
        one, other = getattr(stored, kind), getattr(folded, kind)
        ids = sorted(one.keys() | other.keys())
        found += [f"{kind} {i}: {one.get(i)} {other.get(i)}" for i in ids if one.get(i) != other.get(i)]
    return found


async def broken_rules(db: asyncpg.Connection) -> list[str]:
    """Everything in the stored log and states that contradicts itself. Empty when the books are sound."""
    problems = differences(await stored_books(db), await folded_books(db))
    for name, query in _RULES.items():
        problems += [f"{name}: {dict(record)}" for record in await db.fetch(query)]
    return problems


_RULES = {
    "positions are gapless and the head is the last": """
        SELECT shard, h.position AS head, count(e.position), max(e.position), min(e.position)
        FROM log_heads h LEFT JOIN events e USING (shard) GROUP BY shard, h.position
        HAVING count(e.position) <> h.position OR coalesce(max(e.position), 0) <> h.position
            OR coalesce(min(e.position), 1) <> 1""",
    "seq is gapless and the state knows the last": """
        SELECT e.shard, e.stream_id, count(*), max(e.seq), s.seq
        FROM events e LEFT JOIN account_states s ON s.shard = e.shard AND s.account_id = e.stream_id
        GROUP BY e.shard, e.stream_id, s.seq
        HAVING count(*) <> max(e.seq) OR min(e.seq) <> 1 OR s.seq IS DISTINCT FROM max(e.seq)""",
    "a stream's order in the log is its own order": """
        SELECT shard, stream_id, position FROM (
            SELECT *, lag(position) OVER w AS earlier, lag(at) OVER w AS at_before FROM events
            WINDOW w AS (PARTITION BY shard, stream_id ORDER BY seq)) e
        WHERE position <= earlier OR at < at_before""",
    "every position balances": """
        SELECT shard, position, sum(CASE side WHEN 'debit' THEN amount_microcents ELSE -amount_microcents END)
        FROM postings GROUP BY shard, position
        HAVING sum(CASE side WHEN 'debit' THEN amount_microcents ELSE -amount_microcents END) <> 0""",
    "the trial balance is zero": """
        SELECT sum(debit_microcents), sum(credit_microcents) FROM trial_balance
        HAVING sum(debit_microcents) <> sum(credit_microcents)""",
    "no posting is negative": "SELECT * FROM postings WHERE amount_microcents < 0",
    "postings sum to the states": """
        WITH sums AS (
            SELECT account_id, coalesce(sum(CASE side WHEN 'credit' THEN amount_microcents ELSE -amount_microcents END)
                       FILTER (WHERE ledger_account = 'customer_available'), 0) AS available,
                   coalesce(sum(CASE side WHEN 'credit' THEN amount_microcents ELSE -amount_microcents END)
                       FILTER (WHERE ledger_account = 'customer_held'), 0) AS held,
                   coalesce(sum(CASE side WHEN 'credit' THEN amount_microcents ELSE -amount_microcents END)
                       FILTER (WHERE ledger_account = 'revenue'), 0) AS spent
            FROM postings GROUP BY account_id)
        SELECT s.account_id, p.*, s.credited, s.spent, s.held FROM account_states s LEFT JOIN sums p USING (account_id)
        WHERE coalesce(p.available, 0) <> s.credited - s.spent - s.held OR coalesce(p.held, 0) <> s.held
           OR coalesce(p.spent, 0) <> s.spent""",
    "a hold ends at most once": """
        SELECT hold_id, count(*) FROM events WHERE type IN ('hold.settled', 'hold.voided', 'hold.expired')
        GROUP BY hold_id HAVING count(*) > 1""",
    "a hold is settled at most once, and late only after it expired": """
        SELECT s.hold_id, count(DISTINCT s.position) FROM events s
        LEFT JOIN events e ON e.hold_id = s.hold_id AND e.type = 'hold.expired' AND e.position < s.position
        WHERE s.type IN ('hold.settled', 'hold.settled_late') GROUP BY s.hold_id
        HAVING count(DISTINCT s.position) > 1 OR bool_or(s.type = 'hold.settled_late' AND e.position IS NULL)""",
    "a hold is open or ended": """
        SELECT p.hold_id FROM events p WHERE type = 'hold.placed'
        AND EXISTS (SELECT FROM open_holds o WHERE o.hold_id = p.hold_id) = EXISTS (
            SELECT FROM events e WHERE e.hold_id = p.hold_id
            AND e.type IN ('hold.settled', 'hold.voided', 'hold.expired'))""",
    "a top-up is credited at most once, and so is a payment": """
        SELECT payload ->> 'provider', payload ->> 'payment_id', payload ->> 'topup_id', count(*) FROM events
        WHERE type = 'topup.credited'
        GROUP BY GROUPING SETS ((payload ->> 'provider', payload ->> 'payment_id'), (payload ->> 'topup_id'))
        HAVING count(*) > 1""",
    "no more is taken back of a top-up than was credited": """
        SELECT payload ->> 'topup_id' FROM events WHERE type LIKE 'topup.%' GROUP BY 1
        HAVING sum((payload ->> 'amount_microcents')::bigint * CASE type
            WHEN 'topup.credited' THEN 1 WHEN 'topup.reinstated' THEN 1 WHEN 'topup.reversed' THEN -1 END) < 0""",
    "the columns say what the payload says": """
        SELECT position FROM events
        WHERE type <> payload ->> 'type' OR hold_id IS DISTINCT FROM payload ->> 'hold_id'""",
}


def _without_shard(record: asyncpg.Record) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name != "shard"}
