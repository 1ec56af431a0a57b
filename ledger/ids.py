"""Ids that tell their kind and sort by the time they were made: ``acct_01jd3k…``.

48 bits of milliseconds and 80 random bits in Crockford's base 32, as a ULID, so that new rows land side by side
in an index and two hosts never meet.
"""

import os
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]


def new_id(prefix: str) -> str:
    """A new id of this kind: the prefix, an underscore and 26 characters."""
    number = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    return f"{prefix}_" + "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])
