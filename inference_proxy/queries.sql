-- claim_key --
-- Claim a key that nobody has; no row when somebody has it.
-- $1 shard, $2 account, $3 idempotency key, $4 request hash, $5 hold id
INSERT INTO stored_answers (shard, account_id, idempotency_key, request_hash, hold_id, claimed_at)
VALUES ($1, $2, $3, $4, $5, now())
ON CONFLICT (shard, account_id, idempotency_key) DO NOTHING
RETURNING hold_id

-- claim_of_key --
-- Who has a key, for which request, and whether it waited for its hold for too long.
-- $1 shard, $2 account, $3 idempotency key, $4 how long it may wait
SELECT request_hash, hold_id, claimed_at, claimed_at <= now() - $4::interval AS is_stale FROM stored_answers
WHERE shard = $1 AND account_id = $2 AND idempotency_key = $3

-- take_over_key --
-- Claim a key that a former hold had; no row when another try was quicker, or the key was released.
-- $1 shard, $2 account, $3 idempotency key, $4 former hold id, $5 hold id, $6 when that one was seen to be claimed
UPDATE stored_answers
SET hold_id = $5, claimed_at = now(), status = NULL, content_type = NULL, headers = NULL, body = NULL
WHERE shard = $1 AND account_id = $2 AND idempotency_key = $3 AND hold_id = $4 AND claimed_at = $6
RETURNING hold_id

-- confirm_key --
-- Claim the key anew for the hold that has it, now that it is placed; no row when another try has it.
-- $1 shard, $2 account, $3 idempotency key, $4 hold id
UPDATE stored_answers SET claimed_at = now()
WHERE shard = $1 AND account_id = $2 AND idempotency_key = $3 AND hold_id = $4
RETURNING hold_id

-- keep_answer --
-- Keep the answer of the try that has the key.
-- $1 shard, $2 account, $3 idempotency key, $4 hold id, $5 status, $6 content type, $7 headers, $8 body
UPDATE stored_answers SET status = $5, content_type = $6, headers = $7, body = $8
WHERE shard = $1 AND account_id = $2 AND idempotency_key = $3 AND hold_id = $4

-- kept_answer --
-- The answer of the try that has the key; no row when none is kept.
-- $1 shard, $2 account, $3 idempotency key, $4 hold id
SELECT status, content_type, headers, body FROM stored_answers
WHERE shard = $1 AND account_id = $2 AND idempotency_key = $3 AND hold_id = $4 AND status IS NOT NULL

-- release_key --
-- Let the try that has the key give it back.
-- $1 shard, $2 account, $3 idempotency key, $4 hold id
DELETE FROM stored_answers WHERE shard = $1 AND account_id = $2 AND idempotency_key = $3 AND hold_id = $4

-- purge_answers --
-- Forget what was claimed before a moment; returns how many keys.
-- $1 shard, $2 moment
WITH purged AS (DELETE FROM stored_answers WHERE shard = $1 AND claimed_at < $2 RETURNING 1)
SELECT count(*) FROM purged
