-- What was used and what it cost, for customers and reports. Follows the log asynchronously: the checkpoint moves in
-- the transaction that writes the rows, so that every event counts once.

CREATE TABLE projection_checkpoints (
    projection text NOT NULL,
    shard smallint NOT NULL,
    position bigint NOT NULL DEFAULT 0, -- of the last event that is in the rows
    CONSTRAINT projection_checkpoints_pkey PRIMARY KEY (projection, shard)
);

-- One row for each charge, and for each request that ended without one.
CREATE TABLE usage_logs (
    shard smallint NOT NULL,
    position bigint NOT NULL,
    account_id text NOT NULL,
    key_id text,
    hold_id text NOT NULL,
    request_id text,
    operation text NOT NULL,
    model text NOT NULL,
    status text NOT NULL, -- settled, drawn, voided or expired
    outcome text NOT NULL, -- how the request ended
    backend text,
    input_tokens bigint NOT NULL,
    cached_input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    usage json,
    cost_microcents bigint NOT NULL,
    program text,
    program_version integer,
    started_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    CONSTRAINT usage_logs_pkey PRIMARY KEY (shard, position)
);

CREATE INDEX usage_logs_account ON usage_logs (shard, account_id, position);

-- Sums of the charges by day (UTC) of their end.
CREATE TABLE usage_daily (
    shard smallint NOT NULL,
    account_id text NOT NULL,
    day date NOT NULL,
    key_id text NOT NULL, -- empty for requests without a key
    model text NOT NULL,
    operation text NOT NULL,
    requests bigint NOT NULL,
    input_tokens bigint NOT NULL,
    cached_input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cost_microcents bigint NOT NULL,
    CONSTRAINT usage_daily_pkey PRIMARY KEY (shard, account_id, day, key_id, model, operation)
);

-- The rows of usage_logs that a stretch of the log gives: the one rule of this projection, which the runner, the
-- rebuild and the check all use. json_to_record reads each payload once.
CREATE FUNCTION usage_lines(p_shard smallint, p_after bigint, p_upto bigint) RETURNS TABLE (
    shard smallint, "position" bigint, account_id text, key_id text, hold_id text, request_id text, operation text,
    model text, status text, outcome text, backend text, input_tokens bigint, cached_input_tokens bigint,
    output_tokens bigint, usage json, cost_microcents bigint, program text, program_version integer,
    started_at timestamptz, ended_at timestamptz
) LANGUAGE sql STABLE AS $$
    SELECT e.shard, e.position, e.stream_id, p.key_id, e.hold_id, p.request_id, p.operation, p.model,
           substr(e.type, 6), coalesce(p.outcome, p.reason, 'completed'), p.backend,
           coalesce(u.input_tokens, 0), coalesce(u.cached_input_tokens, 0), coalesce(u.output_tokens, 0), p.usage,
           coalesce(p.amount_microcents, 0), r.program, r.version, p.placed_at, e.at
    FROM events e
    CROSS JOIN json_to_record(e.payload) AS p (
        key_id text, request_id text, operation text, model text, outcome text, reason text, backend text,
        usage json, price json, amount_microcents bigint, placed_at timestamptz)
    LEFT JOIN LATERAL json_to_record(p.usage) AS u (
        input_tokens bigint, cached_input_tokens bigint, output_tokens bigint) ON p.usage IS NOT NULL
    LEFT JOIN LATERAL json_to_record(p.price) AS r (program text, version integer) ON p.price IS NOT NULL
    WHERE e.shard = p_shard AND e.position > p_after AND e.position <= p_upto
      AND e.type IN ('hold.settled', 'hold.drawn', 'hold.voided', 'hold.expired')
    ORDER BY e.position
$$;

-- The sums that a stretch of the log adds to usage_daily.
CREATE FUNCTION usage_daily_sums(p_shard smallint, p_after bigint, p_upto bigint) RETURNS TABLE (
    shard smallint, account_id text, day date, key_id text, model text, operation text, requests bigint,
    input_tokens bigint, cached_input_tokens bigint, output_tokens bigint, cost_microcents bigint
) LANGUAGE sql STABLE AS $$
    SELECT l.shard, l.account_id, (l.ended_at AT TIME ZONE 'UTC')::date, coalesce(l.key_id, ''), l.model, l.operation,
           count(*) FILTER (WHERE l.status IN ('settled', 'drawn')), sum(l.input_tokens)::bigint,
           sum(l.cached_input_tokens)::bigint, sum(l.output_tokens)::bigint, sum(l.cost_microcents)::bigint
    FROM usage_lines(p_shard, p_after, p_upto) l
    WHERE l.status IN ('settled', 'drawn')
    GROUP BY 1, 2, 3, 4, 5, 6
$$;

GRANT SELECT, INSERT, UPDATE ON projection_checkpoints, usage_daily TO tollgate_app;
GRANT SELECT, INSERT ON usage_logs TO tollgate_app;
