"""Alipay without Alipay: a process of its own that speaks as much of its gateway as a prepaid account needs.

Run it with ``python -m simulated_alipay --port 0``; it prints ``{"port": N}`` when it listens. It imports nothing of
Tollgate. It has the page of ``alipay.trade.page.pay``, answers ``alipay.trade.query``, gives bills, and tells of trades
by signed notifications, with real RSA2 signatures. It plays the customer and the merchant's clerk too: a trade is paid,
closed or refunded by a route under ``/_simulator``.

Map: ``signatures`` is RSA2; ``trades`` is what Alipay keeps of a payment and what it tells of it, ``bills`` what it
writes of a whole day; ``notifications`` delivers what is told, again and again until it is answered ``success``;
``server`` has the routes.
"""

__all__: list[str] = []
