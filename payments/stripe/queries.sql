-- customer --
-- $1 account
SELECT customer_id FROM stripe_customers WHERE account_id = $1

-- add_customer --
-- The first one that was made for an account stays. $1 account, $2 customer
INSERT INTO stripe_customers (account_id, customer_id) VALUES ($1, $2) ON CONFLICT (account_id) DO NOTHING

-- saved_card --
-- $1 account
SELECT customer_id, payment_method_id, brand, last4, exp_month, exp_year, saved_at
FROM stripe_customers WHERE account_id = $1 AND payment_method_id IS NOT NULL

-- keep_card --
-- Keep a card unless one was entered later; gives the payment method that was kept before.
-- $1 account, $2 payment method, $3 brand, $4 last4, $5 month, $6 year, $7 when it was entered, $8 now
UPDATE stripe_customers c
SET payment_method_id = $2, brand = $3, last4 = $4, exp_month = $5, exp_year = $6, set_up_at = $7,
    saved_at = CASE WHEN c.payment_method_id = $2 THEN c.saved_at ELSE $8 END
FROM (SELECT account_id, payment_method_id FROM stripe_customers WHERE account_id = $1 FOR UPDATE) before
WHERE c.account_id = before.account_id AND (c.set_up_at IS NULL OR c.set_up_at <= $7)
RETURNING before.payment_method_id

-- forget_card --
-- $1 account
UPDATE stripe_customers
SET payment_method_id = NULL, brand = NULL, last4 = NULL, exp_month = NULL, exp_year = NULL, set_up_at = NULL,
    saved_at = NULL
WHERE account_id = $1
