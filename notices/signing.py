"""The secrets that notices are signed with, and the signatures: Standard Webhooks, whose library does the signing.

A receiver needs the secret itself to verify, and so do we to sign; so it cannot be stored as a hash. It is sealed
(XSalsa20-Poly1305) under a key derived from the server secret, which the database does not know.
"""

import base64
import secrets
from collections.abc import Iterable
from datetime import datetime

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox
from standardwebhooks import Webhook

from notices.errors import SecretUnreadable

PREFIX = "whsec_"
#: Standard Webhooks asks for 24 to 64 bytes.
SECRET_BYTES = 32


class SigningSecrets:
    """Makes, seals and opens secrets. Another server secret opens none that was sealed before it."""

    def __init__(self, server_secret: bytes) -> None:
        derived = HKDF(algorithm=SHA256(), length=SecretBox.KEY_SIZE, salt=None, info=b"tollgate webhook secrets")
        self._box = SecretBox(derived.derive(server_secret))

    def make(self) -> str:
        """A new secret, as its receiver is to be given it."""
        return PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()

    def seal(self, secret: str) -> bytes:
        return bytes(self._box.encrypt(secret.encode()))

    def open(self, sealed: bytes) -> str:
        """The secret. Raises SecretUnreadable when it was sealed under another server secret."""
        try:
            return self._box.decrypt(sealed).decode()
        except CryptoError as error:
            raise SecretUnreadable from error


def signed_headers(notice_id: str, body: str, at: datetime, signing: Iterable[str]) -> dict[str, str]:
    """The headers of a delivery: its id, its moment, and a signature by each of these secrets."""
    return {
        "webhook-id": notice_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(notice_id, at, body) for secret in signing),
    }
