-- Holds that had expired when their settlement came: the request was served, so it is charged all the same, once.
-- What it posts, and how it counts as usage.

-- A hold that ended is charged at most once more, whatever the code believes.
CREATE UNIQUE INDEX events_hold_settled_late_once ON events (shard, hold_id) WHERE type = 'hold.settled_late';

INSERT INTO posting_rules (event_type, ledger_account, side, amount_field) VALUES
    ('hold.settled_late', 'customer_available', 'debit',  'amount_microcents'),
    ('hold.settled_late', 'revenue',            'credit', 'amount_microcents');

-- As before, and late settlements: lines of their own beside those of the expired holds.
CREATE OR REPLACE FUNCTION usage_lines(p_shard smallint, p_after bigint, p_upto bigint) RETURNS TABLE (
    shard smallint, "position" bigint, account_id text, key_id text, hold_id text, request_id text, operation text,
    model text, status text, outcome text, backend text, input_tokens bigint, cached_input_tokens bigint,
    output_tokens bigint, usage json, cost_microcents bigint, program text, program_version integer,
    started_at timestamptz, ended_at timestamptz
) LANGUAGE sql STABLE AS $$
    SELECT e.shard, e.position, e.stream_id, p.key_id, e.hold_id, p.request_id, p.operation, p.model,
           substr(e.type, 6), coalesce(p.outcome, p.reason, 'completed'), p.backend,
           coalesce(u.input_tokens, 0), coalesce(u.cached_input_tokens, 0), coalesce(u.output_tokens, 0), p.usage,
           coalesce(c.cost_microcents, p.amount_microcents, 0), coalesce(c.program, r.program),
           coalesce(c.program_version, r.version), p.placed_at, e.at
    FROM events e
    CROSS JOIN json_to_record(e.payload) AS p (
        key_id text, request_id text, operation text, model text, outcome text, reason text, backend text,
        usage json, price json, amount_microcents bigint, placed_at timestamptz)
    LEFT JOIN LATERAL json_to_record(p.usage) AS u (
        input_tokens bigint, cached_input_tokens bigint, output_tokens bigint) ON p.usage IS NOT NULL
    LEFT JOIN LATERAL json_to_record(p.price) AS r (program text, version integer) ON p.price IS NOT NULL
    LEFT JOIN (
        SELECT DISTINCT ON (charge_position) charge_position, cost_microcents, program, program_version
        FROM usage_corrections(p_shard, p_after, p_upto) ORDER BY charge_position, position DESC
    ) c ON c.charge_position = e.position
    WHERE e.shard = p_shard AND e.position > p_after AND e.position <= p_upto
      AND e.type IN ('hold.settled', 'hold.settled_late', 'hold.drawn', 'hold.voided', 'hold.expired')
    ORDER BY e.position
$$;

-- As before, and late settlements: each is a request, on the day of its charge.
CREATE OR REPLACE FUNCTION usage_daily_sums(p_shard smallint, p_after bigint, p_upto bigint) RETURNS TABLE (
    shard smallint, account_id text, day date, key_id text, model text, operation text, requests bigint,
    input_tokens bigint, cached_input_tokens bigint, output_tokens bigint, cost_microcents bigint
) LANGUAGE sql STABLE AS $$
    SELECT p_shard, m.account_id, m.day, m.key_id, m.model, m.operation, sum(m.requests)::bigint,
           sum(m.input_tokens)::bigint, sum(m.cached_input_tokens)::bigint, sum(m.output_tokens)::bigint,
           sum(m.cost_microcents)::bigint
    FROM (
        SELECT l.account_id, (l.ended_at AT TIME ZONE 'UTC')::date AS day, coalesce(l.key_id, '') AS key_id, l.model,
               l.operation, 1 AS requests, l.input_tokens, l.cached_input_tokens, l.output_tokens, l.cost_microcents
        FROM usage_lines(p_shard, p_after, p_upto) l
        WHERE l.status IN ('settled', 'settled_late', 'drawn')
        UNION ALL
        SELECT c.account_id, (c.charged_at AT TIME ZONE 'UTC')::date, coalesce(c.key_id, ''), c.model, c.operation,
               0, 0, 0, 0, c.moved_microcents
        FROM usage_corrections(p_shard, p_after, p_upto) c
        WHERE c.charge_position <= p_after
    ) m
    GROUP BY 2, 3, 4, 5, 6
$$;
