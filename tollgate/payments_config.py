"""From settings and secrets to how each payment provider is reached and known."""

import os
from collections.abc import Mapping

from ledger import Microcents
from ledger.money import MICROCENTS_PER_CENT
from payments import AlipayConfig, PaymentsConfig, StripeConfig
from tollgate.settings import Settings, SettingsError


def payments_config(settings: Settings, environment: Mapping[str, str] = os.environ) -> PaymentsConfig:
    """Raises SettingsError when a provider is configured by halves."""
    return PaymentsConfig(stripe=stripe_config(settings, environment), alipay=alipay_config(settings, environment))


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
