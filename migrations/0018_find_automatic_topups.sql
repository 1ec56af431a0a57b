-- What an account's automatic top-ups amount to, and which of all accounts has one in flight, found at once.
--
-- The job that makes them asks every few seconds. They are few among all top-ups; and the changes of the setting, after
-- which declines count no more, are few among all events.

CREATE INDEX topup_states_automatic ON topup_states (shard, account_id, requested_at)
    WHERE requested_by = 'automatic_topup';
CREATE INDEX topup_states_automatic_in_flight ON topup_states (shard, account_id)
    WHERE requested_by = 'automatic_topup' AND status IN ('requested', 'pending');
CREATE INDEX events_automatic_topup_changed ON events (shard, stream_id, at) WHERE type = 'automatic_topup.changed';
