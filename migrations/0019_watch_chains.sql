-- What was seen on chains: how far each was read, and the deposits that were found.
--
-- No event and no projection: chains can be read again at any time. What it did to the books is events, each of which
-- happens once however often a chain is read.

CREATE TABLE usdc_scans (
    chain_id bigint NOT NULL,
    head bigint, -- the newest block when it was looked at last
    confirmed_block bigint, -- every deposit up to and with this block was found; null: nothing was read yet
    confirmed_hash text,
    next_look_at timestamptz NOT NULL, -- of whichever worker comes first
    CONSTRAINT usdc_scans_pkey PRIMARY KEY (chain_id),
    CONSTRAINT usdc_scans_confirmed CHECK (num_nulls(confirmed_block, confirmed_hash) <> 1)
);

-- Where a scan stood before, the newest thousand: from one of them it goes on when the chain forgot those after it.
CREATE TABLE usdc_blocks (
    chain_id bigint NOT NULL,
    number bigint NOT NULL,
    hash text NOT NULL,
    CONSTRAINT usdc_blocks_pkey PRIMARY KEY (chain_id, number)
);

CREATE TABLE usdc_deposits (
    chain_id bigint NOT NULL,
    tx_hash text NOT NULL,
    log_index integer NOT NULL,
    block_number bigint NOT NULL,
    block_hash text NOT NULL,
    account_id text NOT NULL,
    address text NOT NULL,
    units numeric NOT NULL CONSTRAINT usdc_deposits_units_positive CHECK (units > 0), -- millionths of a USDC
    seen_at timestamptz NOT NULL,
    gone_at_block bigint, -- the head at which its block was found to have left the chain; null: it is there
    status text NOT NULL, -- what is booked of it
    problem text, -- why nothing more can be booked, as it is; null: nothing is wrong
    CONSTRAINT usdc_deposits_pkey PRIMARY KEY (chain_id, tx_hash, log_index),
    CONSTRAINT usdc_deposits_status
        CHECK (status IN ('seen', 'pending', 'credited', 'failed', 'reversed', 'dust'))
);

-- Those of which something is left to book.
CREATE INDEX usdc_deposits_open ON usdc_deposits (chain_id, block_number) WHERE status IN ('seen', 'pending')
    OR (status <> 'dust' AND (status = 'credited') = (gone_at_block IS NOT NULL));
CREATE INDEX usdc_deposits_blocks ON usdc_deposits (chain_id, block_number);
CREATE INDEX usdc_deposits_account ON usdc_deposits (account_id, seen_at);

GRANT SELECT, INSERT, UPDATE ON usdc_scans TO tollgate_app;
GRANT SELECT, INSERT, DELETE ON usdc_blocks TO tollgate_app;
GRANT SELECT, INSERT, UPDATE (block_number, block_hash, account_id, address, units, gone_at_block, status, problem)
    ON usdc_deposits TO tollgate_app;
