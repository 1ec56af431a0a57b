-- What requests with an Idempotency-Key were answered, for a day, so that the same request again is given the same
-- answer and is not charged again.
--
-- No event and no projection: answers are personal data, which must be erasable. What a key stands for is only noted
-- here; whether its request was charged is said by the events of its hold.

CREATE TABLE stored_answers (
    shard smallint NOT NULL,
    account_id text NOT NULL,
    idempotency_key text NOT NULL,
    request_hash bytea NOT NULL, -- SHA-256 of the operation's path and the body
    hold_id text NOT NULL, -- of the try that has the key; there may be no such hold yet
    claimed_at timestamptz NOT NULL,
    status smallint, -- null, as all below: not answered yet, or the answer is too large to be kept
    content_type text,
    headers json,
    body bytea,
    CONSTRAINT stored_answers_pkey PRIMARY KEY (shard, account_id, idempotency_key),
    CONSTRAINT stored_answers_whole CHECK (num_nulls(status, content_type, headers, body) IN (0, 4))
);

CREATE INDEX stored_answers_claimed ON stored_answers (shard, claimed_at);

GRANT SELECT, INSERT, DELETE, UPDATE (hold_id, claimed_at, status, content_type, headers, body)
    ON stored_answers TO tollgate_app;
