-- lock_refunds --
-- Of one account, until the session lets go. $1 account
SELECT pg_advisory_lock(hashtextextended('refunds of ' || $1, 0))

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

-- automatic_standing --
-- What the books say of an account's automatic top-ups: how many are over, the one in flight, what was paid by those that
-- were asked for since the month began, and the declines in a row, which begin anew when the setting or the card changes.
-- $1 all shards, $2 account, $3 when the month began, $4 when the card was saved or null
WITH own AS MATERIALIZED (
    SELECT topup_id, status, amount, requested_at FROM topup_states
    WHERE shard = ANY ($1::smallint[]) AND account_id = $2 AND requested_by = 'automatic_topup'
), declined AS (
    SELECT requested_at FROM own
    WHERE status = 'failed'
      AND requested_at > (SELECT coalesce(max(requested_at), '-infinity') FROM own WHERE status = 'credited')
      AND requested_at >= coalesce($4::timestamptz, '-infinity')
      AND requested_at >= (SELECT coalesce(max(at), '-infinity') FROM events
                           WHERE shard = ANY ($1::smallint[]) AND stream_id = $2 AND type = 'automatic_topup.changed')
)
SELECT count(*) FILTER (WHERE status NOT IN ('requested', 'pending')) AS over,
       max(topup_id) FILTER (WHERE status IN ('requested', 'pending')) AS in_flight,
       coalesce(sum(amount) FILTER (WHERE status = 'credited' AND requested_at >= $3), 0)::bigint AS paid_this_month,
       (SELECT count(*) FROM declined) AS declines,
       (SELECT max(requested_at) FROM declined) AS last_declined_at
FROM own

-- automatic_in_flight --
-- $1 all shards
SELECT DISTINCT account_id FROM topup_states
WHERE shard = ANY ($1::smallint[]) AND requested_by = 'automatic_topup' AND status IN ('requested', 'pending')
