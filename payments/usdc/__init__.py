"""Payments in USDC: addresses of their own for every account, and what of deposits is booked.

The serving processes give out addresses and show deposits; what watches chains is in ``chain``, which they never
import, because it brings web3. ``config.py`` says which chains there are, ``addresses.py`` whose an address is,
``deposits.py`` what was seen on chains, ``booking.py`` what is made of it.
"""
