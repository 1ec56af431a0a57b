-- Who may do what: users, their sessions, the secrets of keys, and the tokens of operators' programs.
--
-- These rows are not events and cannot be derived from any, on purpose: personal data must be erasable, a credential
-- must be revocable without a trace of its hash, and events are for ever. What decides about money stays in the log:
-- accounts, keys and limits are events, and a key without its event is dead whatever stands here.
--
-- account_id and key_id have no foreign key, because the states they name are projections that a rebuild replaces.

CREATE TABLE users (
    id text NOT NULL,
    email text NOT NULL, -- as it was given; unique whatever its case
    name text NOT NULL,
    password_hash text NOT NULL, -- argon2id, in the PHC string format, which carries its own parameters
    role text NOT NULL CONSTRAINT users_role CHECK (role IN ('customer', 'finance', 'admin')),
    account_id text NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT users_pkey PRIMARY KEY (id)
);

-- The last word on a taken e-mail address: two registrations at once both find it free.
CREATE UNIQUE INDEX users_email_key ON users (lower(email));
CREATE INDEX users_account ON users (account_id);

-- Every secret is stored as its HMAC-SHA-256 under a server secret that is not in the database: a stolen copy of
-- these tables opens nothing, and does not even let a guess be checked.

CREATE TABLE sessions (
    token_hash bytea NOT NULL,
    user_id text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    CONSTRAINT sessions_pkey PRIMARY KEY (token_hash),
    CONSTRAINT sessions_user FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
);

CREATE INDEX sessions_of_user ON sessions (user_id);

CREATE TABLE key_secrets (
    key_id text NOT NULL,
    account_id text NOT NULL,
    user_id text, -- null: made by an operator, or its user was erased; the key goes on working
    name text NOT NULL,
    prefix text NOT NULL, -- the first characters of the secret, to tell keys apart by
    secret_hash bytea NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT key_secrets_pkey PRIMARY KEY (key_id),
    CONSTRAINT key_secrets_secret_hash_key UNIQUE (secret_hash),
    CONSTRAINT key_secrets_user FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE SET NULL
);

CREATE INDEX key_secrets_account ON key_secrets (account_id);
CREATE INDEX key_secrets_of_user ON key_secrets (user_id);

CREATE TABLE service_tokens (
    id text NOT NULL,
    name text NOT NULL,
    role text NOT NULL CONSTRAINT service_tokens_role CHECK (role IN ('customer', 'finance', 'admin')),
    token_hash bytea NOT NULL,
    created_at timestamptz NOT NULL,
    revoked_at timestamptz,
    CONSTRAINT service_tokens_pkey PRIMARY KEY (id),
    CONSTRAINT service_tokens_token_hash_key UNIQUE (token_hash)
);

-- What an operator's Idempotency-Key was first used for. The log binds a key within one account; this binds it over
-- all of them, so that a repeated request with another account in it is refused instead of paid twice.
CREATE TABLE operator_requests (
    idempotency_key text NOT NULL,
    request_hash bytea NOT NULL,
    created_at timestamptz NOT NULL,
    CONSTRAINT operator_requests_pkey PRIMARY KEY (idempotency_key)
);

GRANT SELECT, INSERT, UPDATE (password_hash) ON users TO tollgate_app;
GRANT SELECT, INSERT, DELETE ON sessions TO tollgate_app;
GRANT SELECT, INSERT ON key_secrets TO tollgate_app;
GRANT SELECT, INSERT, UPDATE (revoked_at) ON service_tokens TO tollgate_app;
GRANT SELECT, INSERT ON operator_requests TO tollgate_app;
