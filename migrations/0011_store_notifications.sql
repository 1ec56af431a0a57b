-- What payment providers told us, word for word, and what came of it.
--
-- No event and no projection: a body is personal data (a payer's name and address), which must be erasable. A row is
-- written before the notification is answered, so that whatever happens after can be done again from here; what it did
-- to the books is events, each of which happens once however often its notification is processed.

CREATE TABLE payment_notifications (
    id text NOT NULL,
    provider text NOT NULL,
    event_id text NOT NULL, -- the provider's id of what it tells of; the same for every delivery of it
    event_type text NOT NULL,
    received_at timestamptz NOT NULL, -- the first delivery, as headers and body are
    headers json NOT NULL, -- pairs of name and value, in order
    body bytea NOT NULL,
    deliveries integer NOT NULL DEFAULT 1,
    status text NOT NULL DEFAULT 'received',
    outcome text, -- what was done, or why nothing was; null: not processed yet
    attempts integer NOT NULL DEFAULT 0,
    next_try_at timestamptz NOT NULL, -- when it is processed again, as long as it is 'received'
    CONSTRAINT payment_notifications_pkey PRIMARY KEY (id),
    CONSTRAINT payment_notifications_event UNIQUE (provider, event_id),
    CONSTRAINT payment_notifications_status CHECK (status IN ('received', 'processed', 'ignored', 'broken'))
);

CREATE INDEX payment_notifications_waiting ON payment_notifications (next_try_at) WHERE status = 'received';
CREATE INDEX payment_notifications_time ON payment_notifications (received_at, id);

GRANT SELECT, INSERT, UPDATE (deliveries, status, outcome, attempts, next_try_at)
    ON payment_notifications TO tollgate_app;
