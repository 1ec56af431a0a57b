-- lock_endpoints --
-- Whoever adds an endpoint to an account waits here for who does so at the same time. $1 account
SELECT pg_advisory_xact_lock(hashtextextended('webhook_endpoints of ' || $1, 0))

-- add_endpoint --
-- No row when the account has as many as it may. It is told of what happens from now on.
-- $1 shard, $2 id, $3 account, $4 url, $5 types or null, $6 secret, $7 now, $8 at most so many
INSERT INTO webhook_endpoints (shard, endpoint_id, account_id, url, types, secret, created_at, after_position)
SELECT $1::smallint, $2, $3, $4, $5, $6, $7, (SELECT position FROM log_heads WHERE shard = $1)
WHERE (SELECT count(*) FROM webhook_endpoints WHERE shard = $1 AND account_id = $3) < $8
RETURNING endpoint_id, account_id, url, types, former_secret_until, failing_since, disabled_because, created_at

-- endpoints_of_account --
-- Oldest first; one of them only where an id is given. $1 shard, $2 account, $3 id or null
SELECT endpoint_id, account_id, url, types, former_secret_until, failing_since, disabled_because, created_at
FROM webhook_endpoints WHERE shard = $1 AND account_id = $2 AND ($3::text IS NULL OR endpoint_id = $3)
ORDER BY created_at, endpoint_id

-- change_endpoint --
-- What is enabled anew, or at another URL, begins anew. $1 shard, $2 account, $3 id, $4 url, or null: as it is,
-- $5 whether the types change, $6 to these or null, $7 whether it is disabled, or null: as it is, $8 why, then
UPDATE webhook_endpoints
SET failing_since = CASE WHEN url = coalesce($4, url) AND (disabled_because IS NULL OR $7 IS DISTINCT FROM false)
                         THEN failing_since END,
    url = coalesce($4, url),
    types = CASE WHEN $5 THEN $6::text[] ELSE types END,
    disabled_because = CASE $7::boolean WHEN true THEN coalesce(disabled_because, $8) WHEN false THEN NULL
                                        ELSE disabled_because END
WHERE shard = $1 AND account_id = $2 AND endpoint_id = $3
RETURNING endpoint_id, account_id, url, types, former_secret_until, failing_since, disabled_because, created_at

-- rotate_secret --
-- $1 shard, $2 account, $3 id, $4 new secret, $5 until when the one before it signs as well
UPDATE webhook_endpoints SET former_secret = secret, former_secret_until = $5, secret = $4
WHERE shard = $1 AND account_id = $2 AND endpoint_id = $3
RETURNING endpoint_id, account_id, url, types, former_secret_until, failing_since, disabled_because, created_at

-- delete_endpoint --
-- And all that was made for it. $1 shard, $2 account, $3 id
DELETE FROM webhook_endpoints WHERE shard = $1 AND account_id = $2 AND endpoint_id = $3 RETURNING endpoint_id

-- ensure_notice_checkpoint --
-- $1 shard
INSERT INTO notice_checkpoints (shard) VALUES ($1) ON CONFLICT DO NOTHING

-- lock_notice_checkpoint --
-- One process at a time makes notices; another waits here and then sees what the first did. $1 shard
SELECT position FROM notice_checkpoints WHERE shard = $1 FOR UPDATE

-- notice_checkpoint --
-- $1 shard
SELECT position FROM notice_checkpoints WHERE shard = $1

-- move_notice_checkpoint --
-- $1 shard, $2 position
UPDATE notice_checkpoints SET position = $2 WHERE shard = $1

-- noteworthy_events --
-- The events of a stretch that somebody is told of: those of some types, and those that took the posted balance from
-- the account's threshold or above to below it. What the balance was is asked of the event of money before it, wherever
-- that is: so it does not matter where a stretch begins.
-- $1 shard, $2 after this position, $3 up to this one, $4 types
SELECT e.position, e.stream_id, e.at, e.balance_microcents, e.held_microcents, e.payload, a.currency, c.threshold,
       t.provider, t.amount
FROM events e
JOIN account_states a ON a.shard = e.shard AND a.account_id = e.stream_id
LEFT JOIN topup_states t ON t.shard = e.shard AND t.topup_id = e.payload ->> 'topup_id' AND e.type = ANY ($4)
LEFT JOIN LATERAL (
    SELECT l.threshold FROM low_balance_thresholds l
    WHERE l.shard = e.shard AND l.account_id = e.stream_id AND l.after_position < e.position
      AND e.balance_microcents < l.threshold
      AND l.threshold <= (
          SELECT b.balance_microcents FROM events b
          WHERE b.shard = e.shard AND b.stream_id = e.stream_id AND b.seq < e.seq AND b.balance_microcents IS NOT NULL
          ORDER BY b.seq DESC LIMIT 1)
) c ON true
WHERE e.shard = $1 AND e.position > $2 AND e.position <= $3
  AND EXISTS (SELECT FROM webhook_endpoints w WHERE w.shard = e.shard AND w.account_id = e.stream_id)
  AND (e.type = ANY ($4) OR c.threshold IS NOT NULL)
ORDER BY e.position

-- endpoints_to_tell --
-- Those that are enabled; none is deleted before the notices for it are written. $1 shard, $2 accounts
SELECT endpoint_id, account_id, types, after_position FROM webhook_endpoints
WHERE shard = $1 AND account_id = ANY ($2) AND disabled_because IS NULL ORDER BY endpoint_id FOR KEY SHARE

-- add_notices --
-- A notice that is there already stays as it is. $1 shard, $2 ids, $3 endpoints, $4 types, $5 bodies, $6 moments
INSERT INTO notices (shard, notice_id, endpoint_id, type, body, created_at, next_try_at)
SELECT $1::smallint, n.* FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $6) AS n
ON CONFLICT DO NOTHING

-- add_test --
-- No row when the account has no such endpoint, or it is disabled.
-- $1 shard, $2 account, $3 endpoint, $4 id, $5 type, $6 body, $7 now
INSERT INTO notices (shard, notice_id, endpoint_id, type, body, created_at, next_try_at)
SELECT shard, $4, endpoint_id, $5, $6, $7, $7 FROM webhook_endpoints
WHERE shard = $1 AND account_id = $2 AND endpoint_id = $3 AND disabled_because IS NULL
RETURNING notice_id

-- due_shards --
-- $1 now
SELECT DISTINCT shard FROM notices
WHERE status = 'waiting' AND next_try_at <= $1 AND (leased_until IS NULL OR leased_until <= $1) ORDER BY shard

-- take_notices --
-- Lease notices that are due to whoever asks; nobody else gets them before the lease is over. No endpoint has more than
-- some at a time, and those that fail have to leave room for the others.
-- $1 shard, $2 now, $3 leased until, $4 at most so many, $5 of them to endpoints that fail, $6 at a time to one endpoint
WITH due AS (
    SELECT n.notice_id, n.endpoint_id, n.next_try_at, w.failing_since IS NOT NULL AS is_failing,
           row_number() OVER (PARTITION BY n.endpoint_id ORDER BY n.next_try_at, n.notice_id)
           + (SELECT count(*) FROM notices l WHERE l.shard = $1 AND l.endpoint_id = n.endpoint_id
              AND l.status = 'waiting' AND l.leased_until > $2) AS at_endpoint
    FROM notices n JOIN webhook_endpoints w ON w.shard = n.shard AND w.endpoint_id = n.endpoint_id
    WHERE n.shard = $1 AND n.status = 'waiting' AND n.next_try_at <= $2
      AND (n.leased_until IS NULL OR n.leased_until <= $2) AND w.disabled_because IS NULL
), fair AS (
    SELECT notice_id, is_failing, next_try_at,
           row_number() OVER (PARTITION BY is_failing ORDER BY next_try_at, notice_id) AS place
    FROM due WHERE at_endpoint <= $6
), taken AS (
    SELECT n.notice_id FROM notices n
    WHERE n.shard = $1 AND n.status = 'waiting' AND n.next_try_at <= $2
      AND (n.leased_until IS NULL OR n.leased_until <= $2)
      AND n.notice_id IN (SELECT notice_id FROM fair WHERE NOT is_failing OR place <= $5
                          ORDER BY is_failing, place LIMIT $4)
    FOR UPDATE SKIP LOCKED
)
UPDATE notices n SET attempts = n.attempts + 1, leased_until = $3
FROM taken t, webhook_endpoints w
WHERE n.shard = $1 AND n.notice_id = t.notice_id AND w.shard = n.shard AND w.endpoint_id = n.endpoint_id
RETURNING n.shard, n.notice_id, n.endpoint_id, n.type, n.body, n.attempts, n.failures, w.url, w.secret,
          w.former_secret, w.former_secret_until, w.failing_since

-- note_attempt --
-- $1 shard, $2 notice, $3 attempt, $4 at, $5 status code or null, $6 error or null, $7 milliseconds
INSERT INTO notice_attempts (shard, notice_id, attempt, at, status_code, error, duration_ms)
SELECT shard, notice_id, $3, $4, $5, $6, $7 FROM notices WHERE shard = $1 AND notice_id = $2
ON CONFLICT DO NOTHING

-- move_notice --
-- Unless somebody else has taken it since, because our lease was over.
-- $1 shard, $2 notice, $3 attempt, $4 status, $5 failures, $6 next try
UPDATE notices SET status = $4, failures = $5, next_try_at = $6, leased_until = NULL
WHERE shard = $1 AND notice_id = $2 AND attempts = $3

-- note_success_of_endpoint --
-- $1 shard, $2 endpoint
UPDATE webhook_endpoints SET failing_since = NULL
WHERE shard = $1 AND endpoint_id = $2 AND failing_since IS NOT NULL

-- note_failure_of_endpoint --
-- Gives why it is disabled now, if this is what disabled it. $1 shard, $2 endpoint, $3 now, $4 disabled when it fails
-- since before this, $5 why, then, $6 why at once, or null
UPDATE webhook_endpoints
SET failing_since = coalesce(failing_since, $3),
    disabled_because = coalesce($6, CASE WHEN failing_since <= $4 THEN $5 END)
WHERE shard = $1 AND endpoint_id = $2 AND disabled_because IS NULL
RETURNING disabled_because

-- attempts_of_endpoint --
-- The newest first, and before them what was not tried yet. $1 shard, $2 endpoint, $3 at most so many
SELECT n.notice_id, n.type, n.created_at, n.status, CASE n.status WHEN 'waiting' THEN n.next_try_at END AS next_try_at,
       a.at, a.status_code, a.error, a.duration_ms
FROM notices n LEFT JOIN notice_attempts a ON a.shard = n.shard AND a.notice_id = n.notice_id
WHERE n.shard = $1 AND n.endpoint_id = $2 ORDER BY a.at DESC NULLS FIRST, a.attempt DESC, n.notice_id LIMIT $3

-- send_again --
-- Whatever became of it; a lease that runs goes on. $1 shard, $2 endpoint, $3 notice, $4 now
UPDATE notices SET status = 'waiting', failures = 0, next_try_at = $4
WHERE shard = $1 AND endpoint_id = $2 AND notice_id = $3 RETURNING notice_id

-- purge_notices --
-- $1 shard, $2 made before this
WITH purged AS (DELETE FROM notices WHERE shard = $1 AND created_at < $2 RETURNING 1) SELECT count(*) FROM purged

-- waiting_notices --
-- $1 now
SELECT count(*) AS notices, coalesce(max(extract(epoch FROM $1 - n.created_at)), 0)::float8 AS seconds
FROM notices n JOIN webhook_endpoints w ON w.shard = n.shard AND w.endpoint_id = n.endpoint_id
WHERE n.status = 'waiting' AND w.disabled_because IS NULL

-- threshold --
-- $1 shard, $2 account
SELECT threshold FROM low_balance_thresholds WHERE shard = $1 AND account_id = $2

-- set_threshold --
-- What happens from now on is judged by it. $1 shard, $2 account, $3 threshold
INSERT INTO low_balance_thresholds (shard, account_id, threshold, after_position)
VALUES ($1, $2, $3, (SELECT position FROM log_heads WHERE shard = $1))
ON CONFLICT (shard, account_id) DO UPDATE
SET threshold = excluded.threshold, after_position = excluded.after_position

-- remove_threshold --
-- $1 shard, $2 account
DELETE FROM low_balance_thresholds WHERE shard = $1 AND account_id = $2
