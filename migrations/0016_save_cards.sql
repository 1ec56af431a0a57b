-- The card that a customer has saved at Stripe, so that the account can be topped up while nobody is there.
--
-- No event and no projection: what is shown of a card is personal data, which must be erasable. There is no number of a
-- card here: Stripe has it, and takes money with the payment method's id for our API key alone. What a card pays is
-- top-ups, which are events.
--
-- account_id has no foreign key, because the state that it names is a projection that a rebuild replaces.

CREATE TABLE stripe_customers (
    account_id text NOT NULL,
    customer_id text NOT NULL, -- Stripe's, made when the first card was to be saved
    payment_method_id text, -- null, as all that follow: no card is saved
    brand text,
    last4 text,
    exp_month integer,
    exp_year integer,
    set_up_at timestamptz, -- when it was entered, by Stripe's clock: of two the later one is kept
    saved_at timestamptz, -- when we heard of it first; declines before that count no more
    CONSTRAINT stripe_customers_pkey PRIMARY KEY (account_id),
    CONSTRAINT stripe_customers_customer UNIQUE (customer_id),
    CONSTRAINT stripe_customers_whole_card
        CHECK (num_nulls(payment_method_id, brand, last4, exp_month, exp_year, set_up_at, saved_at) IN (0, 7))
);

GRANT SELECT, INSERT, UPDATE ON stripe_customers TO tollgate_app;
