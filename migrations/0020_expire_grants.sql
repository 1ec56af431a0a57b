-- What the expiry of a credit grant posts: the granting, turned round.

INSERT INTO posting_rules (event_type, ledger_account, side, amount_field) VALUES
    ('grant.expired', 'customer_available', 'debit',  'amount_microcents'),
    ('grant.expired', 'credit_grants',      'credit', 'amount_microcents');
