-- What an account has besides its balance: its open credit grants, and how it is topped up automatically.
--
-- Both are parts of the one account, and change or are needed with its money. So they stand in its row, which is locked,
-- read and written anyway: an account that has neither costs no query more.

ALTER TABLE account_states
    ADD COLUMN automatic_topup json, -- NULL: it is topped up only when somebody asks for it
    ADD COLUMN grants json, -- in the order in which charges take from them; NULL: none
    ADD COLUMN grants_due timestamptz; -- when the first of them expires; NULL: none ever does

-- Of columns that hardly any charge changes, so that its update still needs no new entry in any index.
CREATE INDEX account_states_automatic_topup ON account_states (shard, account_id) WHERE automatic_topup IS NOT NULL;
CREATE INDEX account_states_grants_due ON account_states (grants_due) WHERE grants_due IS NOT NULL;

-- Locks what a group of commands touches and returns it, in one round trip.
-- Accounts are locked in the order of their ids, so that groups cannot deadlock. The other reads stand in
-- statements of their own: each sees what was committed while the lock was waited for.
CREATE OR REPLACE FUNCTION lock_group(
    p_shard smallint, p_accounts text[], p_keys text[], p_holds text[], p_idempotent_streams text[],
    p_idempotency_keys text[], p_topups text[] DEFAULT '{}',
    OUT accounts json, OUT keys json, OUT holds json, OUT replays json, OUT topups json
) LANGUAGE plpgsql AS $$
DECLARE
    v_keys text[];
BEGIN
    SELECT json_agg(a) INTO accounts FROM (
        SELECT account_id, currency, seq, at, credited, spent, held, plan, automatic_topup,
               coalesce(grants, '[]') AS grants, grants_due
        FROM account_states
        WHERE shard = p_shard AND account_id = ANY (p_accounts) ORDER BY account_id FOR NO KEY UPDATE
    ) a;
    v_keys := p_keys;
    IF cardinality(p_holds) > 0 THEN
        SELECT json_agg(h), v_keys || array_agg(h.key_id) INTO holds, v_keys FROM (
            SELECT hold_id, account_id, key_id, held, drawn, operation, model, program, program_version,
                   program_digest, worker_id, request_id, budget_month, placed_at, expires_at
            FROM open_holds WHERE shard = p_shard AND hold_id = ANY (p_holds)
        ) h;
    END IF;
    IF cardinality(v_keys) > 0 THEN
        SELECT json_agg(k) INTO keys FROM (
            SELECT key_id, account_id, is_active, rate_limit_rpm, monthly_budget, month, month_spent, month_held,
                   next_arrival, created_at, last_used_at
            FROM key_states WHERE shard = p_shard AND key_id = ANY (v_keys)
        ) k;
    END IF;
    IF cardinality(p_idempotency_keys) > 0 THEN
        SELECT json_agg(e) INTO replays FROM (
            SELECT position, stream_id, seq, at, idempotency_key, encode(request_hash, 'hex') AS request_hash,
                   balance_microcents, payload AS event
            FROM events JOIN unnest(p_idempotent_streams, p_idempotency_keys) AS asked (stream, key)
                ON shard = p_shard AND stream_id = stream AND idempotency_key = key
        ) e;
    END IF;
    IF cardinality(p_topups) > 0 THEN
        SELECT json_agg(t) INTO topups FROM (
            SELECT topup_id, account_id, provider, status, amount, asked_currency, asked_amount, requested_by,
                   requested_at, reference, payment_id, credited_at, refunded, disputed, reorganised
            FROM topup_states WHERE shard = p_shard AND topup_id = ANY (p_topups)
        ) t;
    END IF;
END $$;

-- Writes one decided group: states first, then the log's head, which stays locked until the commit, then the events.
-- Returns the position before the group's first event. The rows come as JSON arrays, the payload of an event as it is
-- stored, to the byte: one text is much cheaper for the client to send than an array for each of forty columns.
CREATE OR REPLACE FUNCTION append_group(
    p_shard smallint, p_accounts json, p_keys json, p_placed_holds json, p_changed_holds json, p_ended_holds text[],
    p_events json, p_topups json DEFAULT NULL
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    v_head bigint;
BEGIN
    INSERT INTO account_states AS s (shard, account_id, currency, seq, at, credited, spent, held, plan,
                                     automatic_topup, grants, grants_due)
    SELECT p_shard, a.* FROM json_to_recordset(p_accounts) AS a (
        account_id text, currency text, seq bigint, at timestamptz, credited bigint, spent bigint, held bigint,
        plan text, automatic_topup json, grants json,
        grants_due timestamptz)
    ON CONFLICT (shard, account_id) DO UPDATE
    SET seq = excluded.seq, at = excluded.at, credited = excluded.credited, spent = excluded.spent,
        held = excluded.held, plan = excluded.plan, automatic_topup = excluded.automatic_topup,
        grants = coalesce(excluded.grants, s.grants), -- a process of the version before does not say them
        grants_due = excluded.grants_due;

    IF p_keys IS NOT NULL THEN
        INSERT INTO key_states AS s (shard, key_id, account_id, is_active, rate_limit_rpm, monthly_budget, month,
                                     month_spent, month_held, next_arrival, created_at, last_used_at)
        SELECT p_shard, k.* FROM json_to_recordset(p_keys) AS k (
            key_id text, account_id text, is_active boolean, rate_limit_rpm integer, monthly_budget bigint,
            month text, month_spent bigint, month_held bigint, next_arrival timestamptz, created_at timestamptz,
            last_used_at timestamptz)
        ON CONFLICT (shard, key_id) DO UPDATE
        SET is_active = excluded.is_active, rate_limit_rpm = excluded.rate_limit_rpm,
            monthly_budget = excluded.monthly_budget, month = excluded.month, month_spent = excluded.month_spent,
            month_held = excluded.month_held, next_arrival = excluded.next_arrival,
            last_used_at = excluded.last_used_at;
    END IF;

    IF p_placed_holds IS NOT NULL THEN
        INSERT INTO open_holds (shard, hold_id, account_id, key_id, held, drawn, operation, model, program,
                                program_version, program_digest, worker_id, request_id, budget_month,
                                placed_at, expires_at)
        SELECT p_shard, h.* FROM json_to_recordset(p_placed_holds) AS h (
            hold_id text, account_id text, key_id text, held bigint, drawn bigint, operation text, model text,
            program text, program_version integer, program_digest text, worker_id bigint, request_id text,
            budget_month text, placed_at timestamptz, expires_at timestamptz);
    END IF;

    IF p_changed_holds IS NOT NULL THEN
        UPDATE open_holds s SET held = h.held, drawn = h.drawn, expires_at = h.expires_at
        FROM json_to_recordset(p_changed_holds) AS h (hold_id text, held bigint, drawn bigint, expires_at timestamptz)
        WHERE s.shard = p_shard AND s.hold_id = h.hold_id;
    END IF;

    IF cardinality(p_ended_holds) > 0 THEN
        DELETE FROM open_holds WHERE shard = p_shard AND hold_id = ANY (p_ended_holds);
    END IF;

    IF p_topups IS NOT NULL THEN
        INSERT INTO topup_states AS s (shard, topup_id, account_id, provider, status, amount, asked_currency,
                                       asked_amount, requested_by, requested_at, reference, payment_id, credited_at,
                                       refunded, disputed, reorganised)
        SELECT p_shard, t.* FROM json_to_recordset(p_topups) AS t (
            topup_id text, account_id text, provider text, status text, amount bigint, asked_currency text,
            asked_amount numeric, requested_by text, requested_at timestamptz, reference text, payment_id text,
            credited_at timestamptz, refunded bigint, disputed bigint, reorganised bigint)
        ON CONFLICT (shard, topup_id) DO UPDATE
        SET status = excluded.status, reference = excluded.reference, payment_id = excluded.payment_id,
            credited_at = excluded.credited_at, refunded = excluded.refunded, disputed = excluded.disputed,
            reorganised = excluded.reorganised;
    END IF;

    UPDATE log_heads SET position = position + json_array_length(p_events) WHERE shard = p_shard
    RETURNING position - json_array_length(p_events) INTO STRICT v_head;

    INSERT INTO events (shard, position, stream_id, seq, type, at, hold_id, balance_microcents, held_microcents,
                        idempotency_key, request_hash, payload)
    SELECT p_shard, v_head + e.nth, e.stream_id, e.seq, e.type, e.at, e.hold_id, e.balance_microcents,
           e.held_microcents, e.idempotency_key, e.request_hash, e.payload
    FROM json_to_recordset(p_events) AS e (
        nth bigint, stream_id text, seq bigint, type text, at timestamptz, hold_id text, balance_microcents bigint,
        held_microcents bigint, idempotency_key text, request_hash bytea, payload json);
    RETURN v_head;
END $$;
