-- What reconciliations with payment providers found. No events: any of it can be found again; what people say of it is
-- events (break.resolved).

-- The last reconciliation of each provider's each day. Whoever is to do one takes its row first.
CREATE TABLE reconciliation_runs (
    provider text NOT NULL,
    day date NOT NULL, -- of the provider's own calendar
    next_at timestamptz, -- when it is due again; null: never
    tries integer NOT NULL DEFAULT 0,
    finished_at timestamptz, -- the last that came to its end; null: none yet
    matched integer NOT NULL DEFAULT 0,
    breaks text[] NOT NULL DEFAULT '{}', -- ids, resolved ones too
    problem text, -- why the last try did not come to its end
    CONSTRAINT reconciliation_runs_pkey PRIMARY KEY (provider, day)
);

-- Every difference that any reconciliation found, of a day or of a period that somebody asked for.
CREATE TABLE reconciliation_breaks (
    break_id text NOT NULL,
    provider text NOT NULL,
    kind text NOT NULL CONSTRAINT reconciliation_breaks_kind
        CHECK (kind IN ('missing_here', 'missing_there', 'different_amount', 'different_currency')),
    found_at timestamptz NOT NULL,
    seen_at timestamptz NOT NULL, -- last
    line json NOT NULL, -- as in the report
    CONSTRAINT reconciliation_breaks_pkey PRIMARY KEY (break_id)
);

-- What moved money of top-ups, by time.
CREATE INDEX events_topup_movements ON events (shard, at)
    WHERE type IN ('topup.credited', 'topup.reversed', 'topup.reinstated');

GRANT SELECT, INSERT, UPDATE ON reconciliation_runs, reconciliation_breaks TO tollgate_app;
