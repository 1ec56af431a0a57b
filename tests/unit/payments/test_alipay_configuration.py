"""Alipay is on when its application and both keys are set, and off in every other case."""

from textwrap import wrap

import pytest
from msgspec.structs import replace

from simulated_alipay.signatures import KeyPair
from tollgate.payments_config import alipay_config
from tollgate.settings import AlipaySettings, PaymentSettings, Settings, SettingsError

PRIVATE, PUBLIC = "TOLLGATE_ALIPAY_APP_PRIVATE_KEY", "TOLLGATE_ALIPAY_PUBLIC_KEY"
OURS, THEIRS = KeyPair.made(), KeyPair.made()
KEYS = {PRIVATE: OURS.private_text, PUBLIC: THEIRS.public_text}
ALIPAY = AlipaySettings(app_id="app", seller_id="seller", notify_url="https://shop.example/v1/topup/alipay/notify")


def settings(alipay: AlipaySettings = ALIPAY) -> Settings:
    return Settings(payments=PaymentSettings(alipay=alipay))


def armoured(text: str, kind: str) -> str:
    return "\n".join([f"-----BEGIN {kind}-----", *wrap(text, 64), f"-----END {kind}-----", ""])


@pytest.mark.parametrize(
    "keys",
    [KEYS, {PRIVATE: armoured(OURS.private_text, "PRIVATE KEY"), PUBLIC: armoured(THEIRS.public_text, "PUBLIC KEY")}],
)
def test_an_application_and_two_keys_are_enough(keys: dict[str, str]) -> None:
    config = alipay_config(settings(), keys)

    assert config is not None
    assert (config.app_id, config.seller_id) == ("app", "seller")
    for key in (OURS.private_text, THEIRS.public_text):
        assert key not in repr(config)


@pytest.mark.money_bug(48)
@pytest.mark.parametrize(
    "environment", [{}, {PRIVATE: OURS.private_text}, {PUBLIC: THEIRS.public_text}, {**KEYS, PUBLIC: " "}], ids=len
)
def test_without_one_of_them_it_is_off(environment: dict[str, str]) -> None:
    assert alipay_config(settings(), environment) is None


def test_without_an_application_it_is_off() -> None:
    assert alipay_config(Settings(), KEYS) is None


@pytest.mark.parametrize("missing", ["seller_id", "notify_url"])
def test_whom_to_pay_and_whom_to_tell_must_be_said(missing: str) -> None:
    with pytest.raises(SettingsError, match=missing):
        alipay_config(settings(replace(ALIPAY, **{missing: None})), KEYS)


@pytest.mark.parametrize(
    "wrong",
    [{PRIVATE: "secret"}, {PUBLIC: "secret"}, {PRIVATE: OURS.public_text}, {PUBLIC: armoured("AAAA", "PUBLIC KEY")}],
    ids=["no private key", "no public key", "a public key for the private one", "armour without a key"],
)
def test_what_is_no_such_key_is_refused_at_start_and_not_shown(wrong: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match=PRIVATE) as refused:
        alipay_config(settings(), {**KEYS, **wrong})

    assert OURS.private_text not in str(refused.value)
