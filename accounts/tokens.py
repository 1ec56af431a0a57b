"""Secrets that are shown once: keys, sessions and service tokens.

A secret is 256 random bits, so that it needs no slow hash: nobody searches that space. It is stored as its HMAC under
a server secret that the database does not know. It is found by that hash in an index, never compared character by
character: what the time of a look-up tells about an HMAC tells nothing about the secret.
"""

import hmac
import re
import secrets
from typing import Final, Literal

import msgspec

Kind = Literal["key", "session", "service"]

#: What a secret of each kind begins with, so that people and leak scanners know one when they see it.
PREFIXES: Final[dict[Kind, str]] = {"key": "tg_", "session": "tgs_", "service": "tgo_"}

#: Characters of a secret that are kept to tell one key from another: 42 random bits of 256 for a key.
PREFIX_LENGTH = 10
#: The server secret is a key of SHA-256: a shorter one would be the weakest part.
MIN_SERVER_SECRET = 32

_KINDS: Final = {prefix: kind for kind, prefix in PREFIXES.items()}
_SHAPE = re.compile(r"(tg[so]?_)[A-Za-z0-9_-]{43}")


class NewSecret(msgspec.Struct, frozen=True):
    """A secret that was just made: its text is shown once, the rest is stored."""

    text: str
    hash: bytes
    prefix: str

    def __repr__(self) -> str:
        return f"NewSecret({self.prefix}…)"


class Tokens:
    """Makes and hashes secrets. Another server secret makes every secret issued before it unknown."""

    def __init__(self, server_secret: bytes) -> None:
        if len(server_secret) < MIN_SERVER_SECRET:
            raise ValueError(f"the server secret has {len(server_secret)} bytes, it needs {MIN_SERVER_SECRET}")
        self._server_secret = server_secret

    def make(self, kind: Kind) -> NewSecret:
        """A new secret of this kind."""
        text = PREFIXES[kind] + secrets.token_urlsafe(32)
        return NewSecret(text, self.hash(text), text[:PREFIX_LENGTH])

    def hash(self, text: str) -> bytes:
        """What the secret is stored and found under. Any text has a hash; only issued ones are found."""
        # HTTP headers that are not UTF-8 arrive with surrogates in them, which plain UTF-8 refuses to encode.
        return hmac.digest(self._server_secret, text.encode("utf-8", "surrogateescape"), "sha256")


def kind_of(text: str) -> Kind | None:
    """What the secret opens; None for a text that cannot be any secret of ours."""
    match = _SHAPE.fullmatch(text)
    return None if match is None else _KINDS[match[1]]
