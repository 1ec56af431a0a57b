"""USDC is on when there is a key and a chain, and off in every other case; what contradicts itself is refused."""

from typing import Any

import pytest
from bip32 import BIP32
from eth_keys.datatypes import PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from payments import DepositKey, checksummed
from tollgate.payments_config import usdc_config
from tollgate.settings import ChainSettings, PaymentSettings, Settings, SettingsError, UsdcSettings

WALLET = BIP32.from_xpriv(BIP32.from_seed(b"a wallet of nobody's").get_xpriv_from_path("m/44h/60h/0h"))
XPUB = WALLET.get_xpub()
TOKEN = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"
BASE = ChainSettings(
    name="base", chain_id=8453, token=TOKEN.lower(), rpc_urls=["https://node.example/${KEY}"], confirmations=20
)


def settings(*chains: ChainSettings, xpub: str | None = XPUB) -> Settings:
    return Settings(payments=PaymentSettings(usdc=UsdcSettings(xpub=xpub, chains=list(chains))))


def test_a_key_and_a_chain_are_enough() -> None:
    config = usdc_config(settings(BASE), {"KEY": "k3y"})

    assert config is not None
    (chain,) = config.chains
    assert chain.token == TOKEN
    assert chain.rpc_urls == ("https://node.example/k3y",)
    assert (chain.agreeing_nodes, chain.minimum_units) == (1, 1_000_000)
    for secret in ("k3y", XPUB):
        assert secret not in repr(config)


def test_two_nodes_have_to_agree_where_there_are_two() -> None:
    config = usdc_config(settings(replace(BASE, rpc_urls=["https://a.example", "https://b.example"])), {})

    assert config is not None
    assert config.chains[0].agreeing_nodes == 2


def test_the_key_may_be_in_the_environment() -> None:
    config = usdc_config(settings(BASE, xpub=None), {"KEY": "k", "TOLLGATE_USDC_XPUB": XPUB})

    assert config is not None
    assert config.xpub == XPUB


@pytest.mark.parametrize("off", [settings(BASE, xpub=None), settings()])
def test_without_a_key_or_a_chain_it_is_off(off: Settings) -> None:
    assert usdc_config(off, {"KEY": "k"}) is None


@pytest.mark.parametrize(
    ("xpub", "why"),
    [
        (WALLET.get_xpriv(), "private"),
        (BIP32.from_seed(b"a wallet of nobody's", network="test").get_xpriv(), "private"),
        (XPUB[:-1] + ("a" if XPUB[-1] != "a" else "b"), "no extended public key"),
        ("xpub", "no extended public key"),
        (TOKEN, "xpub"),
    ],
)
def test_what_is_no_extended_public_key_is_refused_at_start_and_not_shown(xpub: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why) as refused:
        usdc_config(settings(BASE, xpub=xpub), {"KEY": "k"})

    assert len(xpub) < 10 or xpub not in str(refused.value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"confirmations": None}, "exactly one"),
        ({"finality": "finalized"}, "exactly one"),
        ({"token": TOKEN[:-1] + "4"}, "checksum"),
        ({"token": "0x12"}, "no address"),
        ({"agreeing_nodes": 2}, "agreeing_nodes"),
        ({"webhook_secret_env": "HOOK"}, "HOOK is not set"),
        ({"rpc_urls": ["https://node.example/${OTHER}"]}, "OTHER is not set"),
        ({"rpc_urls": ["https://node.example/$"]}, "rpc_urls"),
        ({"rpc_urls": ["ftp://node.example/k3y"]}, "http"),
    ],
)
def test_a_chain_that_contradicts_itself_is_refused(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=named) as refused:
        usdc_config(settings(replace(BASE, **changes)), {"KEY": "k"})

    assert "k3y" not in str(refused.value)


@pytest.mark.parametrize("same", [{"name": "other"}, {"chain_id": 1}])
def test_no_two_chains_have_one_name_or_id(same: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="twice"):
        usdc_config(settings(BASE, replace(BASE, **same)), {"KEY": "k"})


@given(st.integers(0, 50), st.integers(0, 2**31 - 1))
def test_an_address_is_that_of_the_private_key_that_only_the_wallet_has(shard: int, index: int) -> None:
    address = DepositKey(XPUB).address(shard, index)

    private_key = PrivateKey(WALLET.get_privkey_from_path([shard, index]))
    assert address == private_key.public_key.to_checksum_address()
    assert checksummed(address) == checksummed(address.lower()) == address
