"""What can be set, read once at start: ``tollgate.toml`` for what may be seen, the environment for secrets.

An unknown or ill-typed setting is refused with its name, in the file and among the ``TOLLGATE_`` variables alike.
"""

import os
import secrets
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from inference_proxy import BackendConfig, Model

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]

#: Variables that Tollgate reads. TOLLGATE_TEST_… belong to the test suite.
VARIABLES = (
    "TOLLGATE_ALIPAY_APP_PRIVATE_KEY",
    "TOLLGATE_ALIPAY_PUBLIC_KEY",
    "TOLLGATE_CONFIG",
    "TOLLGATE_DATABASE_URL",
    "TOLLGATE_MIGRATION_DATABASE_URL",
    "TOLLGATE_SECRET",
    "TOLLGATE_STRIPE_API_KEY",
    "TOLLGATE_STRIPE_WEBHOOK_SECRETS",
    "TOLLGATE_USDC_XPUB",
)
DEFAULT_FILE = Path("tollgate.toml")


class SettingsError(Exception):
    """The settings cannot be used; the message names the setting."""


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    host: str = "127.0.0.1"
    port: Port = 8080
    workers: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1  # gate processes on the one port
    drain_s: Annotated[float, msgspec.Meta(ge=0)] = 30.0  # what requests in flight get to finish when told to stop
    write_ahead_dir: str = ".tollgate/write-ahead"  # on a local disk: settlements that Postgres does not have yet


class DatabaseSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    data_dir: str = ".tollgate/postgres"  # of the embedded Postgres, where TOLLGATE_DATABASE_URL is not set
    shards: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 1  # log shards; counts when the ledger is created


class AccountSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    currency: Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")] = "USD"  # of accounts that users register


class ProxySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    forward_headers: list[str] = []  # request headers that backends get to see


class PriceSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    two_people: bool = False  # a version is put in effect by somebody else than the one who published it


class StripeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    success_url: str | None = None  # where a payer comes back to; needed where Stripe's secrets are set
    cancel_url: str | None = None
    product_name: str = "Credit"  # on Stripe's page and receipt
    api_url: str = "https://api.stripe.com"


class AlipaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    app_id: str | None = None  # with the two keys, this turns it on
    seller_id: str | None = None  # whom payers pay; needed where it is on, as is the next one
    notify_url: str | None = None  # of /v1/topup/alipay/notify, as Alipay reaches it
    return_url: str | None = None  # where a payer comes back to
    product_name: str = "Credit"  # on Alipay's page
    gateway: str = "https://openapi.alipay.com/gateway.do"


class ChainSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$")]  # in paths and metrics
    chain_id: Annotated[int, msgspec.Meta(ge=1, le=2**53)]
    token: str  # the contract of USDC on it
    rpc_urls: Annotated[list[str], msgspec.Meta(min_length=1)]  # in order; ${NAME} is taken from the environment
    confirmations: Annotated[int, msgspec.Meta(ge=1, le=10_000)] | None = None  # exactly one of this and the next
    finality: Literal["finalized"] | None = None  # credited when the chain calls the block so
    minimum_usdc: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,9}(\.[0-9]{1,6})?$")] = "1"  # less is not credited
    agreeing_nodes: Annotated[int, msgspec.Meta(ge=1, le=10)] | None = None  # None: two, where there are two
    largest_range: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 2_000  # blocks asked for at once
    look_every_s: Annotated[float, msgspec.Meta(ge=0.1, le=3600)] = 5.0
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=300)] = 10.0  # of one question
    webhook_secret_env: str | None = None  # the variable with the secret that pushes are signed with


class UsdcSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    xpub: str | None = None  # or TOLLGATE_USDC_XPUB; without one, or without a chain, it is off
    chains: list[ChainSettings] = []


class PaymentSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    minimum_cents: Annotated[int, msgspec.Meta(ge=1, le=10**11)] = 500  # of one top-up
    maximum_cents: Annotated[int, msgspec.Meta(ge=1, le=10**11)] = 1_000_000
    stripe: StripeSettings = StripeSettings()
    alipay: AlipaySettings = AlipaySettings()
    usdc: UsdcSettings = UsdcSettings()


class NoticeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    allow_http: bool = False  # receivers without TLS
    allow_private_targets: bool = False  # receivers on this host and in private networks


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole of ``tollgate.toml``."""

    server: ServerSettings = ServerSettings()
    database: DatabaseSettings = DatabaseSettings()
    accounts: AccountSettings = AccountSettings()
    proxy: ProxySettings = ProxySettings()
    prices: PriceSettings = PriceSettings()
    payments: PaymentSettings = PaymentSettings()
    notices: NoticeSettings = NoticeSettings()
    models: list[Model] = []
    backends: list[BackendConfig] = []


def load_settings(path: Path | None, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings of the file: ``path``, else TOLLGATE_CONFIG, else ``tollgate.toml`` here if there is one.

    Raises SettingsError.
    """
    _refuse_unknown_variables(environment)
    named = path or (Path(environment["TOLLGATE_CONFIG"]) if environment.get("TOLLGATE_CONFIG") else None)
    file = named or DEFAULT_FILE
    if named is None and not file.exists():
        return Settings()
    try:
        settings = msgspec.toml.decode(file.read_bytes(), type=Settings)
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from error
    except (msgspec.DecodeError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: {error}") from error
    _refuse_contradictions(settings, environment)
    return settings


def server_secret(settings: Settings, environment: Mapping[str, str] = os.environ) -> bytes:
    """The secret that keys are hashed under: TOLLGATE_SECRET, or with the embedded Postgres a file beside its data.

    Raises SettingsError when a real server is used without one.
    """
    secret = environment.get("TOLLGATE_SECRET")
    if secret is not None:
        if len(secret.encode()) < 32:
            raise SettingsError("TOLLGATE_SECRET is shorter than 32 bytes")
        return secret.encode()
    if "TOLLGATE_DATABASE_URL" in environment:
        raise SettingsError("TOLLGATE_SECRET is not set: at least 32 random bytes that keys are hashed under")
    file = Path(settings.database.data_dir + ".secret")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return file.read_bytes()
    with os.fdopen(descriptor, "wb") as new:
        new.write(secrets.token_urlsafe(32).encode())
    return file.read_bytes()


def _refuse_unknown_variables(environment: Mapping[str, str]) -> None:
    for name in environment:
        if name.startswith("TOLLGATE_") and not name.startswith("TOLLGATE_TEST_") and name not in VARIABLES:
            raise SettingsError(f"the environment variable {name} is not a setting; there are {', '.join(VARIABLES)}")


def _refuse_contradictions(settings: Settings, environment: Mapping[str, str]) -> None:
    if settings.payments.minimum_cents > settings.payments.maximum_cents:
        raise SettingsError("payments.minimum_cents is above payments.maximum_cents")
    models = [model.id for model in settings.models]
    for names, what in ((models, "models"), ([b.name for b in settings.backends], "backends")):
        for name in names:
            if names.count(name) > 1:
                raise SettingsError(f"{what}: {name!r} is there twice")
    for backend in settings.backends:
        for model in backend.models:
            if model not in models:
                raise SettingsError(f"backends.{backend.name}.models: there is no model {model!r}")
        if backend.api_key_env is not None and backend.api_key_env not in environment:
            raise SettingsError(f"backends.{backend.name}.api_key_env: {backend.api_key_env} is not set")
