-- Charges that are corrected when the program that priced them was the wrong one: what the correction posts, and the
-- usage as it is after it. The line and the day of the original request show the corrected amount.

INSERT INTO posting_rules (event_type, ledger_account, side, amount_field) VALUES
    ('charge.rerated', 'customer_available', 'debit',  'charged_microcents'),
    ('charge.rerated', 'revenue',            'credit', 'charged_microcents'),
    ('charge.rerated', 'revenue',            'debit',  'refunded_microcents'),
    ('charge.rerated', 'customer_available', 'credit', 'refunded_microcents');

-- Corrections are few, and are looked for in every stretch of the log.
CREATE INDEX events_charges_rerated ON events (shard, position) WHERE type = 'charge.rerated';

-- The corrections in a stretch of the log, each with the charge that it corrects.
CREATE FUNCTION usage_corrections(p_shard smallint, p_after bigint, p_upto bigint) RETURNS TABLE (
    "position" bigint, charge_position bigint, charged_at timestamptz, account_id text, key_id text, model text,
    operation text, moved_microcents bigint, cost_microcents bigint, program text, program_version integer
) LANGUAGE sql STABLE ROWS 10 AS $$
    SELECT e.position, c.position, c.at, e.stream_id, p.key_id, p.model, p.operation,
           p.charged_microcents - p.refunded_microcents, p.after_microcents, r.program, r.version
    FROM events e
    CROSS JOIN json_to_record(e.payload) AS p (
        charge_seq bigint, key_id text, model text, operation text, charged_microcents bigint,
        refunded_microcents bigint, after_microcents bigint, price json)
    CROSS JOIN json_to_record(p.price) AS r (program text, version integer)
    JOIN events c ON c.shard = e.shard AND c.stream_id = e.stream_id AND c.seq = p.charge_seq
    WHERE e.shard = p_shard AND e.position > p_after AND e.position <= p_upto AND e.type = 'charge.rerated'
$$;

-- As before, and corrected as far as the stretch itself corrects its charges.
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
      AND e.type IN ('hold.settled', 'hold.drawn', 'hold.voided', 'hold.expired')
    ORDER BY e.position
$$;

-- As before, and what the stretch corrects of earlier charges: it moves the sums of the charge's day, and no request.
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
        WHERE l.status IN ('settled', 'drawn')
        UNION ALL
        SELECT c.account_id, (c.charged_at AT TIME ZONE 'UTC')::date, coalesce(c.key_id, ''), c.model, c.operation,
               0, 0, 0, 0, c.moved_microcents
        FROM usage_corrections(p_shard, p_after, p_upto) c
        WHERE c.charge_position <= p_after
    ) m
    GROUP BY 2, 3, 4, 5, 6
$$;

-- A line is corrected in what it cost and by which program; nothing else of it ever changes.
GRANT UPDATE (cost_microcents, program, program_version) ON usage_logs TO tollgate_app;
