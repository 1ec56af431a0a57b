-- lock_deposit_indexes --
-- Until the transaction ends. $1 which lock, $2 shard
SELECT pg_advisory_xact_lock($1, $2)

-- next_deposit_index --
-- $1 shard
SELECT coalesce(max((payload ->> 'index')::bigint), -1) + 1 FROM events
WHERE shard = $1 AND type = 'deposit_address.assigned'

-- addresses_of_account --
-- Newest first. $1 shard, $2 account, $3 fingerprint of the key
SELECT (payload ->> 'index')::bigint AS index, payload ->> 'address' AS address,
       payload ->> 'key_fingerprint' AS key_fingerprint
FROM events
WHERE shard = $1 AND stream_id = $2 AND type = 'deposit_address.assigned' AND payload ->> 'key_fingerprint' = $3
ORDER BY seq DESC

-- assigned_addresses --
-- $1 shard, $2 after this index
SELECT (payload ->> 'index')::bigint AS index, payload ->> 'address' AS address, stream_id AS account_id
FROM events
WHERE shard = $1 AND type = 'deposit_address.assigned' AND (payload ->> 'index')::bigint > $2
ORDER BY 1

-- first_assignment --
-- When the first address was assigned; null: none was. $1 all shards
SELECT min(at) FROM events WHERE shard = ANY ($1::smallint[]) AND type = 'deposit_address.assigned'

-- begin_scan --
-- $1 chain, $2 now
INSERT INTO usdc_scans (chain_id, next_look_at) VALUES ($1, $2) ON CONFLICT DO NOTHING

-- take_look --
-- Take a look that is due, for one taker. $1 chain, $2 now, $3 until the next one
UPDATE usdc_scans SET next_look_at = $2::timestamptz + $3::interval WHERE chain_id = $1 AND next_look_at <= $2
RETURNING chain_id, head, confirmed_block, confirmed_hash

-- wake --
-- $1 chain, $2 now
UPDATE usdc_scans SET next_look_at = $2 WHERE chain_id = $1 AND next_look_at > $2

-- scans --
SELECT chain_id, head, confirmed_block, confirmed_hash FROM usdc_scans

-- note_head --
-- $1 chain, $2 block
UPDATE usdc_scans SET head = $2 WHERE chain_id = $1

-- keep_deposit --
-- A deposit that is there: new, or known in this block, or in another one, or gone until now. One that was credited is
-- pending again, because whoever takes it back may be about to. $1 chain,
-- $2 transaction, $3 log index, $4 block, $5 its hash, $6 account, $7 address, $8 units, $9 now, $10 status if it is new
INSERT INTO usdc_deposits AS d (chain_id, tx_hash, log_index, block_number, block_hash, account_id, address, units,
                                seen_at, status)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
ON CONFLICT (chain_id, tx_hash, log_index) DO UPDATE
SET block_number = excluded.block_number, block_hash = excluded.block_hash, account_id = excluded.account_id,
    address = excluded.address, units = excluded.units, gone_at_block = NULL,
    status = CASE d.status WHEN 'credited' THEN 'pending' ELSE d.status END
WHERE d.gone_at_block IS NOT NULL OR d.block_hash <> excluded.block_hash

-- move_scan --
-- $1 chain, $2 hash of the block where it stood, null before the first, $3 block, $4 its hash
UPDATE usdc_scans SET confirmed_block = $3, confirmed_hash = $4
WHERE chain_id = $1 AND confirmed_hash IS NOT DISTINCT FROM $2
RETURNING chain_id

-- forget_blocks --
-- Those above where the scan is now, and all but the newest ones. $1 chain, $2 block, $3 how many are kept
DELETE FROM usdc_blocks WHERE chain_id = $1 AND (number >= $2 OR number < (
    SELECT min(number) FROM (SELECT number FROM usdc_blocks WHERE chain_id = $1 ORDER BY number DESC LIMIT $3) kept))

-- remember_block --
-- $1 chain, $2 block, $3 its hash
INSERT INTO usdc_blocks (chain_id, number, hash) VALUES ($1, $2, $3)

-- remembered_blocks --
-- $1 chain
SELECT number, hash FROM usdc_blocks WHERE chain_id = $1 ORDER BY number DESC

-- unsettled_deposits --
-- $1 chain
SELECT chain_id, tx_hash, log_index, block_number, block_hash, account_id, address, units, seen_at, gone_at_block,
       status, problem
FROM usdc_deposits WHERE chain_id = $1 AND status IN ('seen', 'pending') AND gone_at_block IS NULL

-- mark_gone --
-- $1 chain, $2 transaction, $3 log index, $4 hash of the block that is gone, $5 head
UPDATE usdc_deposits SET gone_at_block = $5
WHERE chain_id = $1 AND tx_hash = $2 AND log_index = $3 AND block_hash = $4 AND gone_at_block IS NULL

-- mark_all_gone --
-- $1 chain, $2 above this block, $3 head
UPDATE usdc_deposits SET gone_at_block = $3 WHERE chain_id = $1 AND block_number > $2 AND gone_at_block IS NULL

-- open_deposits --
-- $1 chain
SELECT chain_id, tx_hash, log_index, block_number, block_hash, account_id, address, units, seen_at, gone_at_block,
       status, problem
FROM usdc_deposits WHERE chain_id = $1 AND (status IN ('seen', 'pending')
    OR (status <> 'dust' AND (status = 'credited') = (gone_at_block IS NOT NULL)))
ORDER BY block_number, log_index

-- set_status --
-- What somebody else has noted since is another thing than what was booked: then the next look asks the books.
-- $1 chain, $2 transaction, $3 log index, $4 status before, $5 status
UPDATE usdc_deposits SET status = CASE status WHEN $4 THEN $5 ELSE 'pending' END, problem = NULL
WHERE chain_id = $1 AND tx_hash = $2 AND log_index = $3 AND status <> $5

-- set_problem --
-- $1 chain, $2 transaction, $3 log index, $4 problem
UPDATE usdc_deposits SET problem = $4
WHERE chain_id = $1 AND tx_hash = $2 AND log_index = $3 AND problem IS DISTINCT FROM $4
RETURNING chain_id

-- deposits_of_account --
-- $1 account, $2 at most so many
SELECT chain_id, tx_hash, log_index, block_number, block_hash, account_id, address, units, seen_at, gone_at_block,
       status, problem
FROM usdc_deposits WHERE account_id = $1 ORDER BY seen_at DESC, block_number DESC LIMIT $2

-- all_deposits --
-- $1 status or null, $2 at most so many
SELECT chain_id, tx_hash, log_index, block_number, block_hash, account_id, address, units, seen_at, gone_at_block,
       status, problem
FROM usdc_deposits WHERE $1::text IS NULL OR status = $1 ORDER BY seen_at DESC, block_number DESC LIMIT $2
