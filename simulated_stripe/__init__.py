"""Stripe without Stripe: a process of its own that speaks as much of its HTTP API as a prepaid account needs.

Run it with ``python -m simulated_stripe --port 0``; it prints ``{"port": N}`` when it listens. It imports nothing of
Tollgate. Objects have the shapes of Stripe's API version 2026-10-28.endive, as far as payments by Checkout and with a
saved card have them; what it cannot do is answered 404 or 400, never made up. It plays the customer and the bank too: a
session is paid, a payment disputed by a route under ``/_simulator``.

Map: ``forms`` reads Stripe's request encoding; ``objects`` is what Stripe keeps and how one thing leads to another,
``cards`` the same of customers and their cards, ``balance`` of the money that it holds and pays out; ``webhooks`` signs
and delivers events, again and again until they are taken; ``faults`` is what can go wrong; ``server``, ``card_routes``
and ``balance_routes`` have the routes.
"""

__all__: list[str] = []
