"""RSA2: RSA with SHA-256 over the fields in the order of their names."""

import base64
import binascii
from collections.abc import Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa


class KeyPair:
    """A private key and its public one, both also as Alipay shows them: base64 of their DER."""

    def __init__(self, private: rsa.RSAPrivateKey) -> None:
        self.private = private
        self.private_text = base64.b64encode(
            private.private_bytes(
                serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        ).decode()
        self.public_text = base64.b64encode(
            private.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        ).decode()

    @classmethod
    def made(cls) -> "KeyPair":
        """A new one."""
        return cls(rsa.generate_private_key(public_exponent=65537, key_size=2048))


def private_key(text: str) -> rsa.RSAPrivateKey:
    """Raises ValueError when it is none."""
    key = serialization.load_der_private_key(base64.b64decode(text), password=None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise ValueError("no RSA key")
    return key


def public_key(text: str) -> rsa.RSAPublicKey:
    """Raises ValueError when it is none."""
    key = serialization.load_der_public_key(base64.b64decode(text))
    if not isinstance(key, rsa.RSAPublicKey):
        raise ValueError("no RSA key")
    return key


def sign(key: rsa.RSAPrivateKey, text: str) -> str:
    return base64.b64encode(key.sign(text.encode(), padding.PKCS1v15(), hashes.SHA256())).decode()


def is_signed(key: rsa.RSAPublicKey, text: str, signature: str) -> bool:
    try:
        key.verify(base64.b64decode(signature), text.encode(), padding.PKCS1v15(), hashes.SHA256())
    except (InvalidSignature, binascii.Error):
        return False
    return True


def signed_text(fields: Mapping[str, str], *without: str) -> str:
    """What is signed of a form."""
    return "&".join(f"{name}={value}" for name, value in sorted(fields.items()) if name not in without)
