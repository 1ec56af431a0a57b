-- Addresses that customers send coins to. They are events; the indexes find them, and hold them to be used once.

-- The path of an address is the shard and the index, so that the shards never meet.
CREATE UNIQUE INDEX events_deposit_index_assigned_once ON events (shard, ((payload ->> 'index')::bigint))
    WHERE type = 'deposit_address.assigned';

CREATE UNIQUE INDEX events_deposit_address_assigned_once ON events (shard, (payload ->> 'address'))
    WHERE type = 'deposit_address.assigned';

CREATE INDEX events_deposit_addresses_of_account ON events (shard, stream_id, seq)
    WHERE type = 'deposit_address.assigned';
