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
-- What is enabled anew, or at another URL, begins anew. $1 shard, $2 account, $3 id, $4 url, $5 types or null, $6 why it
-- is disabled, or null
UPDATE webhook_endpoints
SET failing_since = CASE WHEN url = $4 AND (disabled_because IS NULL OR $6::text IS NOT NULL) THEN failing_since END,
    url = $4, types = $5, disabled_because = $6
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
