-- What payment providers do with money that they hold for us: what it posts, and of which currency each posting is.

INSERT INTO posting_rules (event_type, ledger_account, side, amount_field) VALUES
    ('processor_fee.charged', 'processor_fees',     'debit',  'charged_microcents'),
    ('processor_fee.charged', 'processor_clearing', 'credit', 'charged_microcents'),
    ('processor_fee.charged', 'processor_clearing', 'debit',  'refunded_microcents'),
    ('processor_fee.charged', 'processor_fees',     'credit', 'refunded_microcents'),
    ('payout.initiated',      'cash_in_transit',    'debit',  'amount_microcents'),
    ('payout.initiated',      'processor_clearing', 'credit', 'amount_microcents'),
    ('payout.paid',           'cash',               'debit',  'amount_microcents'),
    ('payout.paid',           'cash_in_transit',    'credit', 'amount_microcents'),
    ('payout.failed',         'processor_clearing', 'debit',  'in_transit_microcents'),
    ('payout.failed',         'cash_in_transit',    'credit', 'in_transit_microcents'),
    ('payout.failed',         'processor_clearing', 'debit',  'paid_microcents'),
    ('payout.failed',         'cash',               'credit', 'paid_microcents');

COMMENT ON TABLE posting_rules IS
    'customer_available and customer_held are liabilities to the customer; revenue is income; '
    'credit_grants is an expense; adjustments is the counterpart of corrections by hand; '
    'processor_clearing is what payment providers owe us; processor_fees is an expense, what they keep for their '
    'service; cash_in_transit is on its way from them to our bank, cash has arrived';

-- A posting is of the currency that its event names, else of its account's, which the first event of the stream says
-- for ever. Whoever does not ask for the currency does not pay for the look-up.
CREATE OR REPLACE VIEW postings AS
SELECT e.shard, e.position, e.stream_id AS account_id, e.seq, e.at, e.type AS event_type, r.ledger_account, r.side,
       (e.payload ->> r.amount_field)::bigint AS amount_microcents,
       coalesce(e.payload ->> 'currency', o.payload ->> 'currency') AS currency
FROM events e
JOIN posting_rules r ON r.event_type = e.type
LEFT JOIN events o ON o.shard = e.shard AND o.stream_id = e.stream_id AND o.seq = 1
WHERE (e.payload ->> r.amount_field)::bigint <> 0;

CREATE OR REPLACE VIEW trial_balance AS
SELECT ledger_account,
       coalesce(sum(amount_microcents) FILTER (WHERE side = 'debit'), 0) AS debit_microcents,
       coalesce(sum(amount_microcents) FILTER (WHERE side = 'credit'), 0) AS credit_microcents,
       currency
FROM postings GROUP BY ledger_account, currency;
