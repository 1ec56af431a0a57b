-- lock_group --
-- Lock the accounts of a group and read what its commands touch.
-- $1 shard, $2 account ids, $3 key ids, $4 hold ids, $5 and $6 streams and their idempotency keys, $7 top-up ids
SELECT accounts, keys, holds, replays, topups FROM lock_group($1, $2, $3, $4, $5, $6, $7)

-- append_group --
-- Write one decided group; returns the position before its first event.
-- $1 shard, $2 accounts, $3 keys or null, $4 placed holds or null, $5 changed holds or null, $6 ids of ended holds,
-- $7 events, $8 top-ups or null
SELECT append_group($1, $2, $3, $4, $5, $6, $7, $8)

-- hold_history --
-- How holds were placed and ended, and how they were settled after they had expired.
-- $1 shard, $2 hold ids
SELECT position, stream_id, seq, at, hold_id, balance_microcents, payload FROM events
WHERE shard = $1 AND hold_id = ANY ($2)
  AND (CASE type WHEN 'hold.placed' THEN 0 WHEN 'hold.settled' THEN 1 WHEN 'hold.voided' THEN 1
       WHEN 'hold.expired' THEN 1 END) IS NOT NULL
UNION ALL
SELECT position, stream_id, seq, at, hold_id, balance_microcents, payload FROM events
WHERE shard = $1 AND hold_id = ANY ($2) AND type = 'hold.settled_late'

-- events_of_topups --
-- All that happened to some top-ups, in order.
-- $1 shard, $2 top-up ids
SELECT position, stream_id, seq, at, balance_microcents, payload, payload ->> 'topup_id' AS topup_id FROM events
WHERE shard = $1 AND payload ->> 'topup_id' = ANY ($2) AND type LIKE 'topup.%'
ORDER BY position

-- credited_payments --
-- Which top-ups these payments were credited to. Looked up one by one: before the first ANALYZE nothing is known of what
-- the index is over, and a plain join goes through every payment that was ever credited.
-- $1 shard, $2 and $3 providers and their payments
SELECT provider, payment_id, topup_id
FROM unnest($2::text[], $3::text[]) AS asked (provider, payment_id)
CROSS JOIN LATERAL (
    SELECT payload ->> 'topup_id' AS topup_id FROM events
    WHERE shard = $1 AND type = 'topup.credited'
      AND payload ->> 'provider' = asked.provider AND payload ->> 'payment_id' = asked.payment_id
    LIMIT 1
) credited

-- shards --
-- The log shards, fixed when the ledger was created.
SELECT shard FROM log_heads ORDER BY shard

-- head --
-- The position of the last event of a shard.
-- $1 shard
SELECT position FROM log_heads WHERE shard = $1

-- events_after --
-- The log in order of position, a batch at a time.
-- $1 shard, $2 after this position, $3 up to this one, $4 at most so many
SELECT position, stream_id, seq, at, type, hold_id, balance_microcents, held_microcents, payload FROM events
WHERE shard = $1 AND position > $2 AND position <= $3 ORDER BY position LIMIT $4

-- stream_events --
-- One stream in order.
-- $1 shard, $2 stream, $3 after this seq
SELECT position, stream_id, seq, at, balance_microcents, payload FROM events
WHERE shard = $1 AND stream_id = $2 AND seq > $3 ORDER BY seq

-- events_of_hold --
-- All that happened to one hold and its charges, in order.
-- $1 shard, $2 stream, $3 hold id
SELECT position, stream_id, seq, at, balance_microcents, payload FROM events
WHERE shard = $1 AND stream_id = $2 AND hold_id = $3 ORDER BY position

-- charges --
-- Settlements and draws, each with its account and its corrections, in order.
-- $1 shard, $2 from, $3 until, $4 account or null, $5 models or null, $6 operation or null,
-- $7 program or null, $8 its version
SELECT e.position, e.stream_id, e.at, e.payload, a.currency, a.credited - a.spent - a.held AS available, c.corrections,
       (SELECT json_build_array(p.payload -> 'plan', p.payload ->> 'exchange_rate') FROM events p
        WHERE p.shard = e.shard AND p.hold_id = e.hold_id AND p.type = 'hold.placed') AS terms
FROM events e
JOIN account_states a ON a.shard = e.shard AND a.account_id = e.stream_id
LEFT JOIN (
    SELECT stream_id, (payload ->> 'charge_seq')::bigint AS charge_seq,
           json_agg(payload ORDER BY position) AS corrections
    FROM events WHERE shard = $1 AND type = 'charge.rerated' GROUP BY 1, 2
) c ON c.stream_id = e.stream_id AND c.charge_seq = e.seq
WHERE e.shard = $1 AND e.type IN ('hold.settled', 'hold.settled_late', 'hold.drawn') AND e.at >= $2 AND e.at < $3
  AND ($4::text IS NULL OR e.stream_id = $4) AND ($5::text[] IS NULL OR e.payload ->> 'model' = ANY ($5))
  AND ($6::text IS NULL OR e.payload ->> 'operation' = $6)
  AND ($7::text IS NULL OR c.corrections IS NOT NULL
       OR (e.payload #>> '{price,program}' = $7 AND (e.payload #>> '{price,version}')::bigint = $8::bigint))
ORDER BY e.position

-- account_state --
-- $1 shard, $2 account id
SELECT account_id, currency, seq, at, credited, spent, held, plan, automatic_topup, grants, grants_due
FROM account_states
WHERE shard = $1 AND account_id = $2

-- accounts_to_top_up --
-- $1 shard
SELECT account_id, currency, seq, at, credited, spent, held, plan, automatic_topup, grants, grants_due
FROM account_states
WHERE shard = $1 AND automatic_topup IS NOT NULL
  AND credited - spent - held < (automatic_topup ->> 'threshold')::bigint
ORDER BY account_id

-- accounts_with_expired_grants --
-- Those of which something has expired or has lapsed, in order of their ids. $1 now, $2 after this id, $3 at most so many
SELECT account_id, currency, seq, at, credited, spent, held, plan, automatic_topup, grants, grants_due
FROM account_states
WHERE grants_due <= $1 AND account_id > $2
ORDER BY account_id LIMIT $3

-- keys_of_account --
-- $1 shard, $2 account id
SELECT key_id, account_id, is_active, rate_limit_rpm, monthly_budget, month, month_spent, month_held, next_arrival,
       created_at, last_used_at
FROM key_states WHERE shard = $1 AND account_id = $2 ORDER BY created_at, key_id

-- open_holds_of_account --
-- $1 shard, $2 account id
SELECT hold_id, account_id, key_id, held, drawn, operation, model, program, program_version, program_digest,
       worker_id, request_id, budget_month, placed_at, expires_at
FROM open_holds WHERE shard = $1 AND account_id = $2 ORDER BY placed_at, hold_id

-- topup --
-- $1 shard, $2 account id, $3 top-up id
SELECT topup_id, account_id, provider, status, amount, asked_currency, asked_amount, requested_by, requested_at,
       reference, payment_id, credited_at, refunded, disputed, reorganised
FROM topup_states WHERE shard = $1 AND account_id = $2 AND topup_id = $3

-- topups_of_account --
-- Newest first. $1 shard, $2 account id, $3 before this top-up or null, $4 at most so many
SELECT topup_id, account_id, provider, status, amount, asked_currency, asked_amount, requested_by, requested_at,
       reference, payment_id, credited_at, refunded, disputed, reorganised
FROM topup_states
WHERE shard = $1 AND account_id = $2 AND ($3::text IS NULL OR (requested_at, topup_id) < (
    SELECT requested_at, topup_id FROM topup_states WHERE shard = $1 AND account_id = $2 AND topup_id = $3))
ORDER BY requested_at DESC, topup_id DESC LIMIT $4

-- balance_as_of --
-- The balance after the last money event up to a moment: a few dozen index look-ups, however old the account is.
-- $1 shard, $2 account id, $3 moment
SELECT balance_microcents, held_microcents FROM events
WHERE shard = $1 AND stream_id = $2 AND seq <= stream_seq_as_of($1, $2, $3) AND balance_microcents IS NOT NULL
ORDER BY seq DESC LIMIT 1

-- hold_workers --
-- The workers that own open holds.
SELECT DISTINCT worker_id FROM open_holds

-- holds_of_worker --
-- $1 worker id
SELECT hold_id, account_id FROM open_holds WHERE worker_id = $1

-- overdue_holds --
-- Holds whose time ran out, whoever owns them.
-- $1 now
SELECT hold_id, account_id FROM open_holds WHERE expires_at < $1
