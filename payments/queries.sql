-- store_notification --
-- Keep a delivery; of one that was kept before, only that it came again.
-- $1 id, $2 provider, $3 its id of the event, $4 type, $5 now, $6 headers, $7 body, $8 when to try it without us
INSERT INTO payment_notifications AS n (id, provider, event_id, event_type, received_at, headers, body, next_try_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (provider, event_id) DO UPDATE SET deliveries = n.deliveries + 1
RETURNING id, provider, event_id, event_type, received_at, body, deliveries, status, outcome

-- take_waiting --
-- Take notifications that wait to be processed, each of them for one taker; the next look is the later, the more there
-- were. $1 now, $2 first pause, $3 longest pause, $4 at most so many, $5 providers or null
UPDATE payment_notifications n
SET attempts = n.attempts + 1, next_try_at = $1 + least($2::interval * 2 ^ least(n.attempts, 20), $3::interval)
FROM (
    SELECT id FROM payment_notifications WHERE status = 'received' AND next_try_at <= $1
      AND ($5::text[] IS NULL OR provider = ANY ($5))
    ORDER BY next_try_at LIMIT $4 FOR UPDATE SKIP LOCKED
) waiting
WHERE n.id = waiting.id
RETURNING n.id, n.provider, n.event_id, n.event_type, n.received_at, n.body, n.deliveries, n.status, n.outcome

-- finish_notification --
-- $1 id, $2 status, $3 outcome
UPDATE payment_notifications SET status = $2, outcome = $3 WHERE id = $1

-- postpone_notification --
-- Note why it could not be processed yet, or again: it is due, whatever came of it before. $1 id, $2 why
UPDATE payment_notifications SET status = 'received', outcome = $2 WHERE id = $1

-- notifications_page --
-- Oldest first. $1 after this time and $2 id, $3 until or null, $4 provider or null, $5 id or null, ours or the
-- provider's, $6 status or null, $7 at most so many
SELECT id, provider, event_id, event_type, received_at, body, deliveries, status, outcome
FROM payment_notifications
WHERE (received_at, id) > ($1, $2) AND ($3::timestamptz IS NULL OR received_at < $3)
  AND ($4::text IS NULL OR provider = $4) AND ($5::text IS NULL OR id = $5 OR event_id = $5)
  AND ($6::text IS NULL OR status = $6)
ORDER BY received_at, id LIMIT $7

-- account_of_topup --
-- $1 all shards, $2 top-up
SELECT account_id FROM topup_states WHERE shard = ANY ($1::smallint[]) AND topup_id = $2
