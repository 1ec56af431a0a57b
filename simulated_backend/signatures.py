"""How a reader of the journal knows that a record stands as this backend wrote it.

A signed record is its JSON object with one member more at the end, ``signature``: HMAC-SHA256, in hex, over the bytes
of the object without that member. Bytes are signed, never what they decode to, so a reader must keep the bytes. That
no record is missing shows from ``sequence``, which has no gaps. Only the standard library is needed, so that this file
can be taken along alone.
"""

import hmac
from typing import Final

#: For tests, where the point is to notice a mistake and not an attacker.
TEST_KEY: Final = b"simulated-backend"

_SIGNATURE_MARK: Final = b',"signature":"'


def sign(record: bytes, key: bytes) -> bytes:
    """The JSON object with its signature."""
    return b'%b%b%b"}' % (record[:-1], _SIGNATURE_MARK, hmac.digest(key, record, "sha256").hex().encode())


def verify(signed: bytes, key: bytes = TEST_KEY) -> bool:
    """Whether a record, or a line of the journal file, is to the byte what was signed with this key."""
    line = signed.rstrip(b"\n")
    record, _, _ = line.rpartition(_SIGNATURE_MARK)
    return hmac.compare_digest(sign(record + b"}", key), line)
