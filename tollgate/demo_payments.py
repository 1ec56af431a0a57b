"""The payment providers of the demo: simulated ones, what Tollgate has to know of them, and how a customer pays."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from tollgate.demo_alipay import AlipayKeys, alipay_settings
from tollgate.demo_chain import DemoChain, demo_chain
from tollgate.demo_simulations import simulation

#: Of the simulated Stripe, which no money can be got with.
STRIPE_SECRETS = {"TOLLGATE_STRIPE_API_KEY": "sk_test_demo", "TOLLGATE_STRIPE_WEBHOOK_SECRETS": "whsec_demo"}


class DemoProviders(msgspec.Struct, frozen=True, kw_only=True):
    """They run. ``settings`` is their part of ``tollgate.toml``, ``environment`` their secrets."""

    directory: Path
    stripe_url: str
    alipay_url: str
    chain: DemoChain
    settings: str
    environment: dict[str, str]


@asynccontextmanager
async def simulated_providers(directory: Path, *, gate_port: int) -> AsyncIterator[DemoProviders]:
    """The providers, until they are left."""
    async with AsyncExitStack() as stack:
        stripe_url = await stack.enter_async_context(simulation(*_stripe_simulation(gate_port)))
        alipay_keys = AlipayKeys.made()
        alipay_url = await stack.enter_async_context(simulation(*alipay_keys.simulation()))
        alipay_keys.write_environment(directory / "alipay.env")
        chain = await stack.enter_async_context(demo_chain())
        yield DemoProviders(
            directory=directory,
            stripe_url=stripe_url,
            alipay_url=alipay_url,
            chain=chain,
            settings="".join(
                (
                    _stripe_settings(stripe_url, port=gate_port),
                    alipay_settings(alipay_url, port=gate_port),
                    chain.settings,
                )
            ),
            environment=STRIPE_SECRETS | alipay_keys.environment,
        )


def how_to_pay(providers: DemoProviders, base_url: str, key: str) -> str:
    """What to paste, for each road."""
    alipay_env = providers.directory / "alipay.env"
    return f"""Top up by the simulated Stripe at {providers.stripe_url}: open the checkout_url and press Pay, or

  curl {base_url}/topup/stripe/checkout \\
    -H "Authorization: Bearer {key}" -H "Content-Type: application/json" -d '{{"amount_cents": 2500}}'

  curl -X POST <checkout_url>

  curl {base_url}/topup/history -H "Authorization: Bearer {key}"

  {" ".join(f"{name}={value}" for name, value in STRIPE_SECRETS.items())} \\
    tollgate --config {providers.directory / "tollgate.toml"} payments refund <topup_id> --reason demo

By the simulated Alipay at {providers.alipay_url}: the same with /topup/alipay/checkout, or

  curl {base_url.removesuffix("/v1")}/unipay/user_recharge.dspy -H "Authorization: Bearer {key}" \\
    -H "Content-Type: application/json" -d '{{"provider": "alipay", "amount": 100, "currency": "CNY"}}'

Its keys are in {alipay_env}, for `set -a; . {alipay_env}`.

By a test USDC on an EVM node at {providers.chain.url}: ask for your address, send coins to it, and look

  curl {base_url}/topup/usdc/chains -H "Authorization: Bearer {key}"

  {providers.chain.paying}

  curl {base_url}/topup/usdc/deposits -H "Authorization: Bearer {key}"

"""


def _stripe_simulation(gate_port: int) -> list[str]:
    return [
        *("simulated_stripe", "--api-key", STRIPE_SECRETS["TOLLGATE_STRIPE_API_KEY"]),
        *("--webhook-url", f"http://127.0.0.1:{gate_port}/v1/topup/stripe/webhook"),
        *("--webhook-secret", STRIPE_SECRETS["TOLLGATE_STRIPE_WEBHOOK_SECRETS"]),
    ]


def _stripe_settings(stripe_url: str, *, port: int) -> str:
    # Nobody is sent anywhere: a payer of the demo comes back to where the server says that it lives.
    return f'\n[payments.stripe]\napi_url = "{stripe_url}"\nsuccess_url = "http://127.0.0.1:{port}/health"\n'
