"""From settings and secrets to how each payment provider is reached and known."""

import os
from collections.abc import Mapping
from decimal import Decimal
from string import Template
from urllib.parse import urlsplit

from ledger import Microcents
from ledger.money import MICROCENTS_PER_CENT
from payments import AlipayConfig, Chain, DepositKey, PaymentsConfig, StripeConfig, UsdcConfig, checksummed
from tollgate.settings import ChainSettings, Settings, SettingsError


def payments_config(settings: Settings, environment: Mapping[str, str] = os.environ) -> PaymentsConfig:
    """Raises SettingsError when a provider is configured by halves."""
    return PaymentsConfig(
        stripe=stripe_config(settings, environment),
        alipay=alipay_config(settings, environment),
        usdc=usdc_config(settings, environment),
    )


def stripe_config(settings: Settings, environment: Mapping[str, str]) -> StripeConfig | None:
    """How to reach Stripe and to know it: TOLLGATE_STRIPE_API_KEY and TOLLGATE_STRIPE_WEBHOOK_SECRETS (one, or several
    with commas between them); None, and its routes are off, unless both say something.

    Raises SettingsError when a payer would not know where to go.
    """
    payments = settings.payments
    api_key = environment.get("TOLLGATE_STRIPE_API_KEY", "").strip()
    listed = environment.get("TOLLGATE_STRIPE_WEBHOOK_SECRETS", "").split(",")
    webhook_secrets = tuple(filter(None, (secret.strip() for secret in listed)))
    if not api_key or not webhook_secrets:
        return None
    if payments.stripe.success_url is None:
        raise SettingsError("payments.stripe.success_url is not set: where payers come back to")
    return StripeConfig(
        api_key=api_key,
        webhook_secrets=webhook_secrets,
        success_url=payments.stripe.success_url,
        cancel_url=payments.stripe.cancel_url,
        product_name=payments.stripe.product_name,
        api_url=payments.stripe.api_url,
        minimum=Microcents(payments.minimum_cents * MICROCENTS_PER_CENT),
        maximum=Microcents(payments.maximum_cents * MICROCENTS_PER_CENT),
    )


def alipay_config(settings: Settings, environment: Mapping[str, str]) -> AlipayConfig | None:
    """How to reach Alipay and to know it: ``payments.alipay.app_id``, TOLLGATE_ALIPAY_APP_PRIVATE_KEY and
    TOLLGATE_ALIPAY_PUBLIC_KEY; None, and its routes are off, unless all three say something.

    Raises SettingsError when a key is none, or whom to pay and whom to tell is not said.
    """
    payments, alipay = settings.payments, settings.payments.alipay
    private_key = environment.get("TOLLGATE_ALIPAY_APP_PRIVATE_KEY", "").strip()
    public_key = environment.get("TOLLGATE_ALIPAY_PUBLIC_KEY", "").strip()
    if not alipay.app_id or not private_key or not public_key:
        return None
    if not alipay.seller_id or not alipay.notify_url:
        raise SettingsError("payments.alipay.seller_id and payments.alipay.notify_url are not both set")
    try:
        return AlipayConfig(
            app_id=alipay.app_id,
            app_private_key=private_key,
            alipay_public_key=public_key,
            seller_id=alipay.seller_id,
            notify_url=alipay.notify_url,
            return_url=alipay.return_url,
            product_name=alipay.product_name,
            gateway=alipay.gateway,
            minimum=Microcents(payments.minimum_cents * MICROCENTS_PER_CENT),
            maximum=Microcents(payments.maximum_cents * MICROCENTS_PER_CENT),
        )
    except ValueError as error:
        message = "TOLLGATE_ALIPAY_APP_PRIVATE_KEY or TOLLGATE_ALIPAY_PUBLIC_KEY is not such an RSA key"
        raise SettingsError(f"{message}: {error}") from error


def usdc_config(settings: Settings, environment: Mapping[str, str]) -> UsdcConfig | None:
    """Which chains there are and where deposits go: ``payments.usdc.xpub`` or TOLLGATE_USDC_XPUB, and
    ``payments.usdc.chains``; None, and its routes are off, unless there are both.

    Raises SettingsError when the key is none or a private one, or a chain contradicts itself or another one.
    """
    usdc = settings.payments.usdc
    xpub = environment.get("TOLLGATE_USDC_XPUB", "").strip() or usdc.xpub
    if not xpub or not usdc.chains:
        return None
    try:
        DepositKey(xpub)
    except ValueError as error:
        raise SettingsError(f"payments.usdc.xpub or TOLLGATE_USDC_XPUB is no extended public key: {error}") from error
    for names, what in (([c.name for c in usdc.chains], "name"), ([c.chain_id for c in usdc.chains], "chain_id")):
        if len(set(names)) != len(names):
            raise SettingsError(f"payments.usdc.chains: the same {what} is there twice")
    return UsdcConfig(xpub=xpub, chains=tuple(_chain(chain, environment) for chain in usdc.chains))


def _chain(chain: ChainSettings, environment: Mapping[str, str]) -> Chain:
    setting = f"payments.usdc.chains.{chain.name}"
    if (chain.confirmations is None) == (chain.finality is None):
        raise SettingsError(f"{setting}: exactly one of confirmations and finality says when a deposit counts")
    agreeing_nodes = chain.agreeing_nodes or min(2, len(chain.rpc_urls))
    if agreeing_nodes > len(chain.rpc_urls):
        raise SettingsError(f"{setting}.agreeing_nodes: there are only {len(chain.rpc_urls)} rpc_urls")
    if chain.webhook_secret_env is not None and not environment.get(chain.webhook_secret_env):
        raise SettingsError(f"{setting}.webhook_secret_env: {chain.webhook_secret_env} is not set")
    try:
        token = checksummed(chain.token)
    except ValueError as error:
        raise SettingsError(f"{setting}.token: {error}") from error
    return Chain(
        name=chain.name,
        chain_id=chain.chain_id,
        token=token,
        rpc_urls=tuple(_filled_in(url, environment, setting) for url in chain.rpc_urls),
        confirmations=chain.confirmations,
        minimum_units=max(1, int(Decimal(chain.minimum_usdc).scaleb(6))),
        agreeing_nodes=agreeing_nodes,
        largest_range=chain.largest_range,
        look_every_s=chain.look_every_s,
        timeout_s=chain.timeout_s,
        webhook_secret=None if chain.webhook_secret_env is None else environment[chain.webhook_secret_env],
    )


def _filled_in(url: str, environment: Mapping[str, str], setting: str) -> str:
    """The URL with the values of the variables that it names. It is not shown: it may hold a key."""
    try:
        filled_in = Template(url).substitute(environment)
    except KeyError as error:
        raise SettingsError(f"{setting}.rpc_urls: {error.args[0]} is not set") from error
    except ValueError as error:
        raise SettingsError(f"{setting}.rpc_urls: a $ that begins no ${{NAME}}") from error
    if urlsplit(filled_in).scheme not in ("http", "https") or not urlsplit(filled_in).hostname:
        raise SettingsError(f"{setting}.rpc_urls: not an http or https URL")
    return filled_in
