-- topup_movements --
-- What was credited and taken back of a provider's top-ups in a stretch of time.
-- $1 all shards, $2 provider, $3 from, $4 until
SELECT e.shard, e.position, e.at, e.payload, t.topup_id, t.account_id, t.payment_id, t.amount, t.asked_currency,
       t.asked_amount
FROM events e JOIN topup_states t ON t.shard = e.shard AND t.topup_id = e.payload ->> 'topup_id'
WHERE e.shard = ANY ($1::smallint[]) AND e.type IN ('topup.credited', 'topup.reversed', 'topup.reinstated')
  AND e.at >= $3 AND e.at < $4 AND t.provider = $2

-- credits_of_payments --
-- When these payments were credited, whenever that was. Looked up one by one, as in ledger's credited_payments.
-- $1 all shards, $2 provider, $3 payments
SELECT credited.shard, position, at, payload, t.topup_id, t.account_id, t.payment_id, t.amount, t.asked_currency,
       t.asked_amount
FROM unnest($1::smallint[]) AS s (shard) CROSS JOIN unnest($3::text[]) AS asked (payment_id)
CROSS JOIN LATERAL (
    SELECT e.shard, e.position, e.at, e.payload FROM events e
    WHERE e.shard = s.shard AND e.type = 'topup.credited'
      AND e.payload ->> 'provider' = $2 AND e.payload ->> 'payment_id' = asked.payment_id
    LIMIT 1
) credited
JOIN topup_states t ON t.shard = credited.shard AND t.topup_id = credited.payload ->> 'topup_id'

-- provider_events --
-- Fees and payouts of a provider that happened in a stretch of time. They are booked after they happened, so that the
-- search can begin in the middle of a stream that is years old.
-- $1 shard, $2 stream, $3 from, $4 until
SELECT shard, position, at, payload FROM events
WHERE shard = $1 AND stream_id = $2 AND seq > stream_seq_as_of($1, $2, $3::timestamptz - interval '1 day')
  AND type IN ('processor_fee.charged', 'payout.initiated')
  AND (payload ->> 'happened_at')::timestamptz >= $3 AND (payload ->> 'happened_at')::timestamptz < $4

-- provider_events_of_keys --
-- $1 shard, $2 stream, $3 idempotency keys
SELECT shard, position, at, payload FROM events
WHERE shard = $1 AND stream_id = $2 AND idempotency_key = ANY ($3::text[])

-- note_breaks --
-- Remember what was found, so that it can be resolved by its id alone.
-- $1 now, $2 provider, $3 ids, $4 kinds, $5 rows
INSERT INTO reconciliation_breaks AS b (break_id, provider, kind, found_at, seen_at, line)
SELECT id, $2, kind, $1, $1, line::json FROM unnest($3::text[], $4::text[], $5::text[]) AS found (id, kind, line)
ON CONFLICT (break_id) DO UPDATE SET seen_at = excluded.seen_at, line = excluded.line

-- break --
-- $1 id
SELECT provider, kind FROM reconciliation_breaks WHERE break_id = $1

-- open_days --
-- Take up every day that is over, from behind the last one that was taken up; of a new provider the last one only.
-- $1 provider, $2 last day that is over, $3 first day that is gone back to, $4 now
INSERT INTO reconciliation_runs (provider, day, next_at)
SELECT $1, day::date, $4
FROM generate_series(
    greatest((SELECT coalesce(max(day) + 1, $2::date) FROM reconciliation_runs WHERE provider = $1), $3::date),
    $2::date, interval '1 day') AS day
ON CONFLICT DO NOTHING

-- take_day --
-- Take a day that is due: for one taker, who has until $3 to finish it. $1 provider, $2 now, $3 when it is due again
UPDATE reconciliation_runs r SET next_at = $3, tries = r.tries + 1
FROM (
    SELECT day FROM reconciliation_runs WHERE provider = $1 AND next_at <= $2
    ORDER BY day LIMIT 1 FOR UPDATE SKIP LOCKED
) due
WHERE r.provider = $1 AND r.day = due.day
RETURNING r.day

-- finish_day --
-- $1 provider, $2 day, $3 now, $4 matched, $5 ids of breaks, $6 when it is due again or null
UPDATE reconciliation_runs
SET finished_at = $3, matched = $4, breaks = $5::text[], next_at = $6, problem = NULL
WHERE provider = $1 AND day = $2

-- fail_day --
-- $1 provider, $2 day, $3 what went wrong, $4 when it is due again
UPDATE reconciliation_runs SET problem = $3, next_at = $4 WHERE provider = $1 AND day = $2

-- runs --
-- Newest days first. $1 provider or null, $2 at most so many
SELECT provider, day, finished_at, next_at, tries, matched, breaks, problem FROM reconciliation_runs
WHERE $1::text IS NULL OR provider = $1 ORDER BY day DESC, provider LIMIT $2

-- open_breaks --
-- Breaks of the last runs that nobody has resolved. $1 provider, $2 its shard, $3 its stream
SELECT b.kind, count(*) AS breaks
FROM (SELECT DISTINCT unnest(breaks) AS break_id FROM reconciliation_runs WHERE provider = $1) r
JOIN reconciliation_breaks b USING (break_id)
WHERE NOT EXISTS (SELECT FROM events e WHERE e.shard = $2 AND e.stream_id = $3
                  AND e.idempotency_key = 'break:' || b.break_id)
GROUP BY b.kind

-- last_good_run --
-- $1 provider
SELECT max(finished_at) FROM reconciliation_runs WHERE provider = $1
