-- Notices: what accounts are told by signed webhooks, where it goes, and how far the log was followed for it.
--
-- No events and no projections: URLs, secrets and bodies must be erasable, and what was sent once must not be sent again
-- because something was rebuilt. A notice is written in the transaction that moves the checkpoint, so that each event
-- makes each notice once, however many processes follow the log; from then on it is delivered at least once.

CREATE TABLE webhook_endpoints (
    shard smallint NOT NULL, -- of the account
    endpoint_id text NOT NULL,
    account_id text NOT NULL,
    url text NOT NULL,
    types text[], -- of the notices that it wants; null: all, also those to come
    secret bytea NOT NULL, -- sealed under a key that the database does not know
    former_secret bytea, -- the one before it, which signs as well until then
    former_secret_until timestamptz,
    after_position bigint NOT NULL, -- it is told of events above this one
    failing_since timestamptz, -- null: its last delivery succeeded, or there was none
    disabled_because text, -- null: it is enabled
    created_at timestamptz NOT NULL,
    CONSTRAINT webhook_endpoints_pkey PRIMARY KEY (shard, endpoint_id),
    CONSTRAINT webhook_endpoints_former_secret_ends
        CHECK (num_nulls(former_secret, former_secret_until) IN (0, 2))
);

CREATE INDEX webhook_endpoints_account ON webhook_endpoints (shard, account_id, created_at);

-- The outbox. With its endpoint everything of it goes.
CREATE TABLE notices (
    shard smallint NOT NULL,
    notice_id text NOT NULL, -- follows from shard, position, endpoint and type; receivers know repetitions by it
    endpoint_id text NOT NULL,
    type text NOT NULL,
    body text NOT NULL, -- as it is signed and sent, to the byte
    created_at timestamptz NOT NULL, -- when the event happened
    status text NOT NULL DEFAULT 'waiting',
    next_try_at timestamptz NOT NULL, -- as long as it is waiting
    leased_until timestamptz, -- a process is sending it; when that is killed, another one may from then on
    attempts integer NOT NULL DEFAULT 0, -- begun
    failures integer NOT NULL DEFAULT 0, -- in a row, since it was made or last sent again by hand
    CONSTRAINT notices_pkey PRIMARY KEY (shard, notice_id),
    CONSTRAINT notices_status CHECK (status IN ('waiting', 'delivered', 'failed')),
    CONSTRAINT notices_endpoint FOREIGN KEY (shard, endpoint_id)
        REFERENCES webhook_endpoints (shard, endpoint_id) ON DELETE CASCADE
);

CREATE INDEX notices_waiting ON notices (shard, next_try_at) WHERE status = 'waiting';
CREATE INDEX notices_of_endpoint ON notices (shard, endpoint_id, created_at);
CREATE INDEX notices_time ON notices (shard, created_at);

CREATE TABLE notice_attempts (
    shard smallint NOT NULL,
    notice_id text NOT NULL,
    attempt integer NOT NULL,
    at timestamptz NOT NULL,
    status_code smallint, -- null: there was no answer
    error text, -- null: delivered
    duration_ms integer NOT NULL,
    CONSTRAINT notice_attempts_pkey PRIMARY KEY (shard, notice_id, attempt),
    CONSTRAINT notice_attempts_notice FOREIGN KEY (shard, notice_id)
        REFERENCES notices (shard, notice_id) ON DELETE CASCADE
);

CREATE TABLE low_balance_thresholds (
    shard smallint NOT NULL,
    account_id text NOT NULL,
    threshold bigint NOT NULL, -- microcents
    after_position bigint NOT NULL, -- events above it are judged by it
    CONSTRAINT low_balance_thresholds_pkey PRIMARY KEY (shard, account_id),
    CONSTRAINT low_balance_thresholds_not_negative CHECK (threshold >= 0)
);

CREATE TABLE notice_checkpoints (
    shard smallint NOT NULL,
    position bigint NOT NULL DEFAULT 0, -- the notices of events up to here were made
    CONSTRAINT notice_checkpoints_pkey PRIMARY KEY (shard)
);

-- Nobody had an endpoint so far: there is nothing to tell of what happened before.
INSERT INTO notice_checkpoints (shard, position) SELECT shard, position FROM log_heads;

GRANT SELECT, INSERT, DELETE, UPDATE (url, types, secret, former_secret, former_secret_until, failing_since,
                                      disabled_because) ON webhook_endpoints TO tollgate_app;
GRANT SELECT, INSERT, DELETE, UPDATE (status, next_try_at, leased_until, attempts, failures) ON notices TO tollgate_app;
GRANT SELECT, INSERT ON notice_attempts TO tollgate_app;
GRANT SELECT, INSERT, DELETE, UPDATE (threshold, after_position) ON low_balance_thresholds TO tollgate_app;
GRANT SELECT, INSERT, UPDATE (position) ON notice_checkpoints TO tollgate_app;
