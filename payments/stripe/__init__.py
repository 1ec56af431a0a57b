"""Payments by Stripe: its words, checkouts, webhooks, refunds, and what is booked of them."""
