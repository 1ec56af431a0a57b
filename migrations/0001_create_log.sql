-- The log: every event for ever, its order, and who may touch it.
--
-- shard is the unit of order and comes first in every key, so that a database distributed by shard keeps each
-- group of appends on one node. Positions are gapless within a shard and in commit order, because the log's head
-- row is taken by the last statement of an append and stays locked until its commit.

DO $$ BEGIN
    CREATE ROLE tollgate_app NOLOGIN;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL; -- roles belong to the whole server: another database made it
END $$;

DO $$ BEGIN
    -- The serving processes log in as the same user and then act as tollgate_app.
    EXECUTE format('GRANT tollgate_app TO %I', current_user);
EXCEPTION WHEN unique_violation OR invalid_grant_operation THEN
    NULL;
END $$;

CREATE TABLE log_heads (
    shard smallint PRIMARY KEY,
    position bigint NOT NULL DEFAULT 0 -- of the last event
);

CREATE TABLE events (
    shard smallint NOT NULL,
    position bigint NOT NULL,
    stream_id text NOT NULL,
    seq bigint NOT NULL,
    type text NOT NULL,
    at timestamptz NOT NULL, -- when it happened
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(), -- when it was written
    hold_id text,
    balance_microcents bigint, -- posted balance after a money event
    held_microcents bigint, -- all holds after a money event
    idempotency_key text,
    request_hash bytea, -- of the command that the idempotency key was used for
    payload json NOT NULL, -- json, not jsonb: the exact text, so that its hash can be recomputed from what is stored
    CONSTRAINT events_pkey PRIMARY KEY (shard, position),
    CONSTRAINT events_stream_seq_key UNIQUE (shard, stream_id, seq)
);

-- A hold is placed once and ends once, whatever the code believes.
CREATE UNIQUE INDEX events_hold_placed_and_ended_once ON events (shard, hold_id, (CASE type
    WHEN 'hold.placed' THEN 0
    WHEN 'hold.settled' THEN 1
    WHEN 'hold.voided' THEN 1
    WHEN 'hold.expired' THEN 1
END)) WHERE hold_id IS NOT NULL;

CREATE UNIQUE INDEX events_idempotency_key ON events (shard, stream_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;

-- The last event of a stream up to and including a moment; 0 when there is none. Within a stream time never goes back,
-- so halving the stretch finds it in a few dozen look-ups of the index on seq, however old the stream is. An index on
-- the time would find it in one, and cost every append a fifth more.
CREATE FUNCTION stream_seq_as_of(p_shard smallint, p_stream_id text, p_at timestamptz) RETURNS bigint
LANGUAGE plpgsql STABLE AS $$
DECLARE
    v_low bigint := 0; -- is not after the moment
    v_high bigint; -- is after it
    v_middle bigint;
BEGIN
    SELECT coalesce(max(seq), 0) + 1 INTO v_high FROM events WHERE shard = p_shard AND stream_id = p_stream_id;
    WHILE v_low + 1 < v_high LOOP
        v_middle := (v_low + v_high) / 2;
        IF (SELECT at <= p_at FROM events WHERE shard = p_shard AND stream_id = p_stream_id AND seq = v_middle) THEN
            v_low := v_middle;
        ELSE
            v_high := v_middle;
        END IF;
    END LOOP;
    RETURN v_low;
END $$;

CREATE FUNCTION refuse_change_of_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'events are for ever: % is refused, append a correcting event', TG_OP
        USING ERRCODE = 'insufficient_privilege';
END $$;

CREATE TRIGGER events_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_events();

GRANT SELECT, INSERT ON events TO tollgate_app;
GRANT SELECT, UPDATE ON log_heads TO tollgate_app;
