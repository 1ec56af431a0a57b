-- Double entry: what each money event posts. Amounts are positive; the side says the direction.
-- One row of rules for each leg; the legs of an event are the rules of its type, with the amount that the event
-- carries in that field. Every event balances by itself, so the trial balance is zero at every position.

CREATE TABLE posting_rules (
    event_type text NOT NULL,
    ledger_account text NOT NULL,
    side text NOT NULL CONSTRAINT posting_rules_side CHECK (side IN ('debit', 'credit')),
    amount_field text NOT NULL,
    CONSTRAINT posting_rules_pkey PRIMARY KEY (event_type, ledger_account, side, amount_field)
);

COMMENT ON TABLE posting_rules IS
    'customer_available and customer_held are liabilities to the customer; revenue is income; '
    'credit_grants is an expense; adjustments is the counterpart of corrections by hand';

INSERT INTO posting_rules (event_type, ledger_account, side, amount_field) VALUES
    ('credit.granted',   'credit_grants',      'debit',  'amount_microcents'),
    ('credit.granted',   'customer_available', 'credit', 'amount_microcents'),
    ('balance.adjusted', 'adjustments',        'debit',  'credited_microcents'),
    ('balance.adjusted', 'customer_available', 'credit', 'credited_microcents'),
    ('balance.adjusted', 'customer_available', 'debit',  'debited_microcents'),
    ('balance.adjusted', 'adjustments',        'credit', 'debited_microcents'),
    ('hold.placed',      'customer_available', 'debit',  'amount_microcents'),
    ('hold.placed',      'customer_held',      'credit', 'amount_microcents'),
    ('hold.extended',    'customer_available', 'debit',  'amount_microcents'),
    ('hold.extended',    'customer_held',      'credit', 'amount_microcents'),
    ('hold.drawn',       'customer_held',      'debit',  'amount_microcents'),
    ('hold.drawn',       'revenue',            'credit', 'amount_microcents'),
    ('hold.settled',     'customer_held',      'debit',  'held_microcents'),
    ('hold.settled',     'customer_available', 'debit',  'overrun_microcents'),
    ('hold.settled',     'customer_available', 'credit', 'released_microcents'),
    ('hold.settled',     'revenue',            'credit', 'amount_microcents'),
    ('hold.voided',      'customer_held',      'debit',  'held_microcents'),
    ('hold.voided',      'customer_available', 'credit', 'held_microcents'),
    ('hold.expired',     'customer_held',      'debit',  'held_microcents'),
    ('hold.expired',     'customer_available', 'credit', 'held_microcents');

CREATE VIEW postings AS
SELECT e.shard, e.position, e.stream_id AS account_id, e.seq, e.at, e.type AS event_type, r.ledger_account, r.side,
       (e.payload ->> r.amount_field)::bigint AS amount_microcents
FROM events e JOIN posting_rules r ON r.event_type = e.type
WHERE (e.payload ->> r.amount_field)::bigint <> 0;

CREATE VIEW trial_balance AS
SELECT ledger_account,
       coalesce(sum(amount_microcents) FILTER (WHERE side = 'debit'), 0) AS debit_microcents,
       coalesce(sum(amount_microcents) FILTER (WHERE side = 'credit'), 0) AS credit_microcents
FROM postings GROUP BY ledger_account;

GRANT SELECT ON posting_rules, postings, trial_balance TO tollgate_app;
