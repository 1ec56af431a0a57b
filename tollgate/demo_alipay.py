"""The demo's application at the simulated Alipay: keys made for it, which nothing else ever sees."""

import base64
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

APP_ID, SELLER_ID = "2021000000000001", "2088000000000001"


class AlipayKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Both sides' RSA keys, as Alipay shows keys: base64 of their DER."""

    app_private: str
    app_public: str
    alipay_private: str
    alipay_public: str

    @classmethod
    def made(cls) -> "AlipayKeys":
        app_private, app_public = _pair()
        alipay_private, alipay_public = _pair()
        return cls(
            app_private=app_private, app_public=app_public, alipay_private=alipay_private, alipay_public=alipay_public
        )

    @property
    def environment(self) -> dict[str, str]:
        """What Tollgate has of them."""
        return {"TOLLGATE_ALIPAY_APP_PRIVATE_KEY": self.app_private, "TOLLGATE_ALIPAY_PUBLIC_KEY": self.alipay_public}

    def simulation(self) -> list[str]:
        """The module that has the rest of them, and its arguments."""
        return [
            *("simulated_alipay", "--app-id", APP_ID, "--seller-id", SELLER_ID),
            *("--private-key", self.alipay_private, "--app-public-key", self.app_public),
        ]

    def write_environment(self, file: Path) -> None:
        """For commands beside the demo: ``set -a; . <file>``."""
        file.touch(mode=0o600)
        file.write_text("".join(f"{name}={value}\n" for name, value in self.environment.items()))


def alipay_settings(alipay_url: str, *, port: int) -> str:
    """The part of ``tollgate.toml``. A payer of the demo comes back to where the server says that it lives."""
    own = f"http://127.0.0.1:{port}"
    return (
        f'\n[payments.alipay]\napp_id = "{APP_ID}"\nseller_id = "{SELLER_ID}"\ngateway = "{alipay_url}/gateway.do"\n'
        f'notify_url = "{own}/v1/topup/alipay/notify"\nreturn_url = "{own}/health"\n'
    )


def _pair() -> tuple[str, str]:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private_der = private.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public_der = private.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return base64.b64encode(private_der).decode(), base64.b64encode(public_der).decode()
