-- ensure_checkpoint --
-- $1 projection, $2 shard
INSERT INTO projection_checkpoints (projection, shard) VALUES ($1, $2) ON CONFLICT DO NOTHING

-- lock_checkpoint --
-- One runner at a time moves a projection on; another waits here and then sees what the first did.
-- $1 projection, $2 shard
SELECT position FROM projection_checkpoints WHERE projection = $1 AND shard = $2 FOR UPDATE

-- head --
-- The position of the last event of a shard; no row for a shard that the log does not have. $1 shard
SELECT position FROM log_heads WHERE shard = $1

-- untrue_heads --
-- Shards whose head is not the position of their last event.
SELECT coalesce(h.shard, e.shard) AS shard, h.position AS head, e.last
FROM log_heads h FULL JOIN (SELECT shard, max(position) AS last FROM events GROUP BY shard) e ON e.shard = h.shard
WHERE h.position IS DISTINCT FROM coalesce(e.last, 0) ORDER BY 1

-- move_checkpoint --
-- $1 projection, $2 shard, $3 position
UPDATE projection_checkpoints SET position = $3 WHERE projection = $1 AND shard = $2

-- add_usage_logs --
-- $1 shard, $2 after this position, $3 up to this one
INSERT INTO usage_logs SELECT * FROM usage_lines($1, $2, $3)

-- correct_usage_logs --
-- What the stretch corrects of earlier charges, on the lines of those. $1 shard, $2 after this position, $3 up to this
UPDATE usage_logs l
SET cost_microcents = c.cost_microcents, program = c.program, program_version = c.program_version
FROM (
    SELECT DISTINCT ON (charge_position) charge_position, cost_microcents, program, program_version
    FROM usage_corrections($1, $2, $3) WHERE charge_position <= $2 ORDER BY charge_position, position DESC
) c
WHERE l.shard = $1 AND l.position = c.charge_position

-- add_usage_daily --
-- $1 shard, $2 after this position, $3 up to this one
INSERT INTO usage_daily AS d SELECT * FROM usage_daily_sums($1, $2, $3)
ON CONFLICT (shard, account_id, day, key_id, model, operation) DO UPDATE
SET requests = d.requests + excluded.requests, input_tokens = d.input_tokens + excluded.input_tokens,
    cached_input_tokens = d.cached_input_tokens + excluded.cached_input_tokens,
    output_tokens = d.output_tokens + excluded.output_tokens,
    cost_microcents = d.cost_microcents + excluded.cost_microcents

-- lag --
-- How far a projection is behind the log: events, and the age in seconds of the oldest event that is not in it.
-- $1 projection, $2 now
SELECT coalesce(sum(h.position - coalesce(c.position, 0)), 0)::bigint AS events,
       coalesce(max(extract(epoch FROM $2 - e.at)), 0)::float8 AS seconds
FROM log_heads h
LEFT JOIN projection_checkpoints c ON c.shard = h.shard AND c.projection = $1
LEFT JOIN events e ON e.shard = h.shard AND e.position = coalesce(c.position, 0) + 1

-- usage_logs_page --
-- Newest first. $1 shard, $2 account, $3 key or null, $4 model or null, $5 from or null, $6 to or null,
-- $7 before this position or null, $8 limit, $9 offset
SELECT position, hold_id, request_id, key_id, operation, model, status, outcome, backend, input_tokens,
       cached_input_tokens, output_tokens, cost_microcents, started_at, ended_at
FROM usage_logs
WHERE shard = $1 AND account_id = $2
  AND ($3::text IS NULL OR key_id = $3) AND ($4::text IS NULL OR model = $4)
  AND ($5::timestamptz IS NULL OR ended_at >= $5) AND ($6::timestamptz IS NULL OR ended_at < $6)
  AND ($7::bigint IS NULL OR position < $7)
ORDER BY position DESC LIMIT $8 OFFSET $9

-- usage_sums --
-- Sums by model, by key and by day at once; whole days from the roll-up, the days cut by from and to from the lines.
-- $1 shard, $2 account, $3 from, $4 to, $5 first whole day, $6 day after the last whole day
SELECT model, key_id, day, sum(requests)::bigint AS requests, sum(input_tokens)::bigint AS input_tokens,
       sum(cached_input_tokens)::bigint AS cached_input_tokens, sum(output_tokens)::bigint AS output_tokens,
       sum(cost_microcents)::bigint AS cost_microcents
FROM (
    SELECT model, key_id, day, requests, input_tokens, cached_input_tokens, output_tokens, cost_microcents
    FROM usage_daily WHERE shard = $1 AND account_id = $2 AND day >= $5::date AND day < $6::date
    UNION ALL
    SELECT model, coalesce(key_id, ''), (ended_at AT TIME ZONE 'UTC')::date, 1, input_tokens, cached_input_tokens,
           output_tokens, cost_microcents
    FROM usage_logs
    WHERE shard = $1 AND account_id = $2 AND status IN ('settled', 'settled_late', 'drawn') AND ended_at >= $3 AND ended_at < $4
      AND NOT ((ended_at AT TIME ZONE 'UTC')::date >= $5::date AND (ended_at AT TIME ZONE 'UTC')::date < $6::date)
) parts
GROUP BY GROUPING SETS ((), (model), (key_id), (day))

-- usage_logs_differences --
-- Lines that are stored and do not follow from the log, and the other way round.
-- $1 shard, $2 checkpoint
SELECT position, side FROM (
    (SELECT position, 'stored' AS side FROM (
        SELECT l.position, l::text FROM usage_logs l WHERE l.shard = $1
        EXCEPT ALL SELECT l.position, l::text FROM usage_lines($1, 0, $2) l) s)
    UNION ALL
    (SELECT position, 'derived' AS side FROM (
        SELECT l.position, l::text FROM usage_lines($1, 0, $2) l
        EXCEPT ALL SELECT l.position, l::text FROM usage_logs l WHERE l.shard = $1) d)
) differences ORDER BY position, side LIMIT 1000

-- usage_daily_differences --
-- $1 shard, $2 checkpoint
SELECT account_id, day, model, side FROM (
    (SELECT account_id, day, model, 'stored' AS side FROM (
        SELECT * FROM usage_daily WHERE shard = $1 EXCEPT ALL SELECT * FROM usage_daily_sums($1, 0, $2)) s)
    UNION ALL
    (SELECT account_id, day, model, 'derived' AS side FROM (
        SELECT * FROM usage_daily_sums($1, 0, $2) EXCEPT ALL SELECT * FROM usage_daily WHERE shard = $1) d)
) differences ORDER BY account_id, day, model, side LIMIT 1000

-- checkpoint --
-- $1 projection, $2 shard
SELECT position FROM projection_checkpoints WHERE projection = $1 AND shard = $2

-- unbalanced_positions --
-- Events whose postings do not balance. $1 shard
SELECT position FROM postings WHERE shard = $1 GROUP BY position
HAVING sum(amount_microcents * CASE side WHEN 'debit' THEN 1 ELSE -1 END) <> 0 ORDER BY position LIMIT 1000

-- broken_corrections --
-- Corrections that do not continue the charge they name: its facts, its amount, or the correction before. $1 shard
SELECT l.position FROM (
    SELECT e.position, e.shard, e.stream_id, e.hold_id, p.*,
           row_number() OVER charge AS nth, lag(p.after_microcents) OVER charge AS stood_at
    FROM events e CROSS JOIN json_to_record(e.payload) AS p (
        charge_seq bigint, ordinal bigint, before_microcents bigint, after_microcents bigint, operation text,
        model text, placed_at timestamptz, reference text, key_id text)
    WHERE e.shard = $1 AND e.type = 'charge.rerated'
    WINDOW charge AS (PARTITION BY e.stream_id, p.charge_seq ORDER BY e.position)
) l
LEFT JOIN events e ON e.shard = l.shard AND e.stream_id = l.stream_id AND e.seq = l.charge_seq
    AND e.hold_id = l.hold_id AND CASE WHEN l.reference IS NULL THEN e.type IN ('hold.settled', 'hold.settled_late')
        ELSE e.type = 'hold.drawn' END
LEFT JOIN LATERAL json_to_record(e.payload) AS c (
    amount_microcents bigint, operation text, model text, placed_at timestamptz, reference text, key_id text) ON true
WHERE (l.ordinal, l.before_microcents) IS DISTINCT FROM (l.nth, coalesce(l.stood_at, c.amount_microcents))
   OR (l.operation, l.model, l.placed_at, l.reference, l.key_id)
      IS DISTINCT FROM (c.operation, c.model, c.placed_at, c.reference, c.key_id)
ORDER BY l.position LIMIT 1000

-- broken_late_settlements --
-- Late settlements of holds that did not expire before, or that say something else than the hold they name. $1 shard
SELECT l.position
FROM events l CROSS JOIN json_to_record(l.payload) AS s (
    operation text, model text, placed_at timestamptz, key_id text, request_id text, price jsonb)
LEFT JOIN events p ON p.shard = l.shard AND p.stream_id = l.stream_id AND p.hold_id = l.hold_id
    AND p.type = 'hold.placed'
LEFT JOIN LATERAL json_to_record(p.payload) AS h (
    operation text, model text, key_id text, request_id text, price jsonb) ON true
WHERE l.shard = $1 AND l.type = 'hold.settled_late'
  AND ((s.operation, s.model, s.placed_at, s.key_id, s.request_id, s.price)
       IS DISTINCT FROM (h.operation, h.model, p.at, h.key_id, h.request_id, h.price)
   OR NOT EXISTS (SELECT FROM events e WHERE e.shard = l.shard AND e.stream_id = l.stream_id
                  AND e.hold_id = l.hold_id AND e.type = 'hold.expired' AND e.position < l.position))
ORDER BY l.position LIMIT 1000

-- payments_credited_again --
-- $1 shard
SELECT position FROM (
    SELECT position, row_number() OVER (PARTITION BY payload ->> 'provider', payload ->> 'payment_id'
                                        ORDER BY position) AS nth
    FROM events WHERE shard = $1 AND type = 'topup.credited'
) credited WHERE nth > 1 ORDER BY position LIMIT 1000

-- posted_by_account --
-- What the postings make of each account; what a provider does with our money is nobody's balance. $1 shard
SELECT account_id,
       coalesce(sum(signed) FILTER (WHERE ledger_account = 'customer_available'), 0)::bigint AS available,
       coalesce(sum(signed) FILTER (WHERE ledger_account = 'customer_held'), 0)::bigint AS held,
       coalesce(sum(signed) FILTER (WHERE ledger_account = 'revenue'), 0)::bigint AS spent,
       coalesce(-sum(signed) FILTER (
           WHERE ledger_account IN ('credit_grants', 'adjustments', 'processor_clearing')), 0)::bigint AS credited
FROM (SELECT *, amount_microcents * CASE side WHEN 'credit' THEN 1 ELSE -1 END AS signed FROM postings) p
WHERE shard = $1 AND account_id NOT LIKE 'provider:%' GROUP BY account_id

-- broken_payouts --
-- Events of payouts that do not follow from those before: paid or failed without a beginning, twice, after it failed, or
-- with another amount. $1 shard
SELECT position FROM (
    SELECT e.position, e.type, p.*,
           first_value(p.amount_microcents) OVER payout AS amount, first_value(p.currency) OVER payout AS money,
           count(*) FILTER (WHERE e.type = 'payout.paid') OVER before AS paid_before,
           count(*) FILTER (WHERE e.type = 'payout.failed') OVER before AS failed_before,
           row_number() OVER payout AS nth
    FROM events e CROSS JOIN json_to_record(e.payload) AS p (
        payout_id text, amount_microcents bigint, in_transit_microcents bigint, paid_microcents bigint, currency text)
    WHERE e.shard = $1 AND e.type LIKE 'payout.%'
    WINDOW payout AS (PARTITION BY e.stream_id, p.payout_id ORDER BY e.position),
           before AS (payout ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
) p
WHERE (type = 'payout.initiated') <> (nth = 1) OR failed_before > 0 OR money <> currency
   OR (type = 'payout.paid' AND (paid_before > 0 OR amount_microcents <> amount))
   OR (type = 'payout.failed' AND (in_transit_microcents, paid_microcents)
       <> (CASE paid_before WHEN 0 THEN amount ELSE 0 END, CASE paid_before WHEN 0 THEN 0 ELSE amount END))
ORDER BY position LIMIT 1000

-- fees_charged_again --
-- $1 shard
SELECT position FROM (
    SELECT position, row_number() OVER (PARTITION BY stream_id, payload ->> 'reference' ORDER BY position) AS nth
    FROM events WHERE shard = $1 AND type = 'processor_fee.charged'
) charged WHERE nth > 1 ORDER BY position LIMIT 1000

-- missing_guards --
-- What holds the log together in the database itself, and is not there or switched off.
SELECT expected AS guard FROM unnest(ARRAY['events_are_append_only']) expected
WHERE NOT EXISTS (SELECT FROM pg_trigger WHERE tgname = expected AND tgrelid = 'events'::regclass AND tgenabled <> 'D')
UNION ALL
SELECT expected FROM unnest(ARRAY['events_pkey', 'events_stream_seq_key', 'events_hold_placed_and_ended_once',
                                  'events_hold_settled_late_once', 'events_idempotency_key',
                                  'events_topup_requested_and_credited_once', 'events_payment_credited_once',
                                  'events_deposit_index_assigned_once', 'events_deposit_address_assigned_once']) expected
WHERE NOT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass(expected) AND indisunique AND indisvalid)

-- stored_accounts --
-- $1 shard
SELECT account_id, currency, seq, at, credited, spent, held, plan, automatic_topup, grants, grants_due
FROM account_states
WHERE shard = $1

-- stored_keys --
-- $1 shard
SELECT key_id, account_id, is_active, rate_limit_rpm, monthly_budget, month, month_spent, month_held, next_arrival,
       created_at, last_used_at
FROM key_states WHERE shard = $1

-- stored_holds --
-- $1 shard
SELECT hold_id, account_id, key_id, held, drawn, operation, model, program, program_version, program_digest,
       worker_id, request_id, budget_month, placed_at, expires_at
FROM open_holds WHERE shard = $1

-- stored_topups --
-- $1 shard
SELECT topup_id, account_id, provider, status, amount, asked_currency, asked_amount, requested_by, requested_at,
       reference, payment_id, credited_at, refunded, disputed, reorganised
FROM topup_states WHERE shard = $1
