-- key_by_secret --
-- Whose key this is; no row when it is unknown, deleted, or has no event. A key pays for requests whoever made it: it
-- never carries its user's office.
-- $1 hash, $2 the log shards (a key's state stands in the shard of its account)
SELECT s.key_id AS id, 'customer' AS role, s.account_id, k.user_id, s.key_id, NULL::timestamptz AS expires_at
FROM key_secrets k JOIN key_states s ON s.shard = ANY ($2::smallint[]) AND s.key_id = k.key_id
WHERE k.secret_hash = $1 AND s.account_id = k.account_id AND s.is_active

-- session_by_token --
-- Whose session this is; no row when it is unknown or over.
-- $1 hash, $2 now
SELECT u.id, u.role, u.account_id, u.id AS user_id, NULL::text AS key_id, s.expires_at
FROM sessions s JOIN users u ON u.id = s.user_id
WHERE s.token_hash = $1 AND s.expires_at > $2

-- service_by_token --
-- Which service token this is; no row when it is unknown or revoked.
-- $1 hash
SELECT id, role, NULL::text AS account_id, NULL::text AS user_id, NULL::text AS key_id,
       NULL::timestamptz AS expires_at
FROM service_tokens WHERE token_hash = $1 AND revoked_at IS NULL

-- insert_user --
-- $1 id, $2 e-mail, $3 name, $4 password hash, $5 role, $6 account id, $7 created at
INSERT INTO users (id, email, name, password_hash, role, account_id, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)

-- user_by_id --
-- $1 id
SELECT id, email, name, role, account_id, created_at FROM users WHERE id = $1

-- user_by_email --
-- $1 e-mail, in any case
SELECT id, email, name, role, account_id, created_at FROM users WHERE lower(email) = lower($1)

-- users_of_account --
-- The account's users, the first one first.
-- $1 account id
SELECT id, email, name, role, account_id, created_at FROM users WHERE account_id = $1 ORDER BY created_at, id

-- password_of --
-- What a login is judged by.
-- $1 e-mail, in any case
SELECT id, password_hash FROM users WHERE lower(email) = lower($1)

-- replace_password_hash --
-- The same password under newer parameters; not when it was changed meanwhile.
-- $1 user id, $2 the hash it replaces, $3 hash
UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2

-- insert_session --
-- $1 hash, $2 user id, $3 created at, $4 expires at
INSERT INTO sessions (token_hash, user_id, created_at, expires_at) VALUES ($1, $2, $3, $4)

-- delete_expired_sessions --
-- So that a user's sessions do not pile up.
-- $1 user id, $2 now
DELETE FROM sessions WHERE user_id = $1 AND expires_at <= $2

-- insert_key_secret --
-- $1 key id, $2 account id, $3 user id or null, $4 name, $5 prefix, $6 hash, $7 created at
INSERT INTO key_secrets (key_id, account_id, user_id, name, prefix, secret_hash, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)

-- key_labels --
-- What people know the account's keys by.
-- $1 account id
SELECT key_id, name, prefix FROM key_secrets WHERE account_id = $1

-- key_secret_hash --
-- What a key is cached under.
-- $1 key id
SELECT secret_hash FROM key_secrets WHERE key_id = $1

-- insert_service_token --
-- $1 id, $2 name, $3 role, $4 hash, $5 created at
INSERT INTO service_tokens (id, name, role, token_hash, created_at) VALUES ($1, $2, $3, $4, $5)

-- revoke_service_token --
-- Returns the id when there was such a token to revoke.
-- $1 id, $2 now
UPDATE service_tokens SET revoked_at = $2 WHERE id = $1 AND revoked_at IS NULL RETURNING id

-- service_tokens --
-- All of them, revoked ones too, oldest first.
SELECT id, name, role, created_at, revoked_at FROM service_tokens ORDER BY created_at, id

-- bind_idempotency_key --
-- The first request keeps the key.
-- $1 idempotency key, $2 hash of the request, $3 now
INSERT INTO operator_requests (idempotency_key, request_hash, created_at) VALUES ($1, $2, $3)
ON CONFLICT (idempotency_key) DO NOTHING

-- bound_request --
-- What the key was bound to.
-- $1 idempotency key
SELECT request_hash FROM operator_requests WHERE idempotency_key = $1
