"""The oracle of these tests is one itself: it finds what was tampered with, and only then."""

import asyncpg

from ledger import Ledger
from tests.integration.ledger.stored import broken_rules
from tests.unit.ledger.scenes import create_key, draw, expire, grant, open_account, place, publish, settle, void

BOOKS = (
    open_account(),
    grant(1_000),
    create_key(budget=500),
    place("hold_1", 60, key_id="key_1"),
    draw("hold_1", 5),
    settle("hold_1", 80),
    place("hold_2", 10),
    void("hold_2"),
    place("hold_3", 10),
    place("hold_4", 10),
    expire("hold_4"),
    settle("hold_4", 5),
    publish(),
)
TAMPERINGS = (
    "UPDATE account_states SET credited = credited + 1, spent = spent + 1",
    "UPDATE account_states SET seq = seq + 1",
    "DELETE FROM account_states WHERE account_id = 'prices'",
    "UPDATE key_states SET month_spent = 0",
    "UPDATE open_holds SET held = held + 1",
    "DELETE FROM open_holds",
    "INSERT INTO open_holds SELECT shard, 'hold_2', account_id, key_id, 0, drawn, operation, model, program,"
    " program_version, program_digest, worker_id, request_id, budget_month, placed_at, expires_at FROM open_holds",
    "UPDATE log_heads SET position = position + 1",
    "DELETE FROM events WHERE position = (SELECT max(position) FROM events)",
    "UPDATE events SET position = position + 1 WHERE position = (SELECT max(position) FROM events)",
    "UPDATE events SET seq = seq + 1 WHERE seq = (SELECT max(seq) FROM events)",
    "UPDATE events SET hold_id = 'hold_9' WHERE type = 'hold.drawn'",
    "UPDATE events SET at = at - interval '1 hour' WHERE type = 'hold.settled'",
    "UPDATE events SET hold_id = 'hold_1', payload = replace(payload::text, 'hold_4', 'hold_1')::json"
    " WHERE type = 'hold.settled_late'",
    "DELETE FROM posting_rules WHERE event_type = 'hold.settled' AND amount_field = 'overrun_microcents'",
    "UPDATE posting_rules SET ledger_account = 'revenue' WHERE ledger_account = 'customer_held' AND side = 'debit'",
    "UPDATE posting_rules SET side = CASE side WHEN 'debit' THEN 'credit' ELSE 'debit' END",
)


async def test_sound_books_break_no_rule_and_every_tampering_does(ledger: Ledger, admin: asyncpg.Connection) -> None:
    for command in BOOKS:
        await ledger.submit(command)
    untouched = await broken_rules(admin)
    await admin.execute("ALTER TABLE events DISABLE TRIGGER events_are_append_only")

    unnoticed = []
    for tampering in TAMPERINGS:
        transaction = admin.transaction()
        await transaction.start()
        await admin.execute(tampering)
        if not await broken_rules(admin):
            unnoticed.append(tampering)
        await transaction.rollback()

    assert untouched == []
    assert unnoticed == []
