"""Stripe is on when both its secrets are set, and off in every other case."""

from pathlib import Path

import pytest

from ledger import microcents_from_cents
from tollgate.payments_config import stripe_config
from tollgate.settings import PaymentSettings, Settings, SettingsError, StripeSettings, load_settings

KEY, SECRETS = "TOLLGATE_STRIPE_API_KEY", "TOLLGATE_STRIPE_WEBHOOK_SECRETS"
SETTINGS = Settings(
    payments=PaymentSettings(
        minimum_cents=100, maximum_cents=200, stripe=StripeSettings(success_url="https://shop.example/thanks")
    )
)


def test_both_secrets_and_a_place_to_come_back_to_are_enough() -> None:
    config = stripe_config(SETTINGS, {KEY: "sk_1", SECRETS: "whsec_1"})

    assert config is not None
    assert (config.api_key, config.webhook_secrets) == ("sk_1", ("whsec_1",))
    assert config.success_url == "https://shop.example/thanks"
    assert (config.minimum, config.maximum) == (microcents_from_cents(100), microcents_from_cents(200))


@pytest.mark.money_bug(48)
@pytest.mark.parametrize(
    "environment",
    [
        {},
        {KEY: "sk_1"},
        {SECRETS: "whsec_1"},
        {KEY: "sk_1", SECRETS: ""},
        {KEY: "sk_1", SECRETS: " , ,"},
        {KEY: " ", SECRETS: "whsec_1"},
    ],
    ids=str,
)
def test_without_one_of_them_it_is_off(environment: dict[str, str]) -> None:
    assert stripe_config(SETTINGS, environment) is None
    assert stripe_config(Settings(), environment) is None


def test_several_webhook_secrets_are_listed_with_commas() -> None:
    config = stripe_config(SETTINGS, {KEY: "sk_1", SECRETS: "whsec_2, whsec_1,"})

    assert config is not None
    assert config.webhook_secrets == ("whsec_2", "whsec_1")


def test_payers_must_have_a_place_to_come_back_to() -> None:
    with pytest.raises(SettingsError, match="success_url"):
        stripe_config(Settings(), {KEY: "sk_1", SECRETS: "whsec_1"})


def test_the_smallest_top_up_is_not_above_the_largest(tmp_path: Path) -> None:
    file = tmp_path / "tollgate.toml"
    file.write_text("[payments]\nminimum_cents = 2\nmaximum_cents = 1\n")

    with pytest.raises(SettingsError, match="minimum_cents"):
        load_settings(file, {})
