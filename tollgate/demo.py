"""``tollgate demo``: the whole server on one machine, with a simulated GPU backend, a customer, credit and a key."""

import asyncio
import os
import secrets
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from datetime import timedelta
from decimal import Decimal
from importlib import resources
from pathlib import Path
from string import Template

import aiohttp
import msgspec
from argon2 import PasswordHasher

from accounts import Authenticator, Keys, Operators, Passwords, ServiceTokens, Tokens, Users
from ledger import Ledger, Microcents, microcents_from_cents
from ledger.events import ProgramAssigned, RatePublished
from pricing.publishing import assign, publish, publish_rate
from tollgate.app import utc_now
from tollgate.database import connect, create_pool, database
from tollgate.demo_payments import DemoProviders, how_to_pay, simulated_providers
from tollgate.demo_simulations import simulation
from tollgate.embedded_postgres import PostgresInUse, delete_cluster
from tollgate.processes import Supervisor, require_free_port, settings_arguments
from tollgate.settings import Settings, SettingsError, load_settings

MODELS = ("qwen3-32b", "deepseek-v3")
CONTEXT_LENGTH = 32_768
CREDIT: Microcents = microcents_from_cents(1000)
READY_WITHIN_S = 30.0
ROOT = Path(".tollgate")
#: Of nobody's market.
DOLLARS_FOR_A_YUAN = Decimal("0.14")


class Demo(msgspec.Struct, frozen=True, kw_only=True):
    """What a program needs to use the demo; written to ``.tollgate/demo.json``."""

    base_url: str  # for the SDKs: with /v1
    server_url: str  # the server itself, without a path
    api_key: str
    service_token: str
    account_id: str
    user_id: str
    email: str
    password: str
    models: list[str]
    backend_url: str
    stripe_url: str | None  # None, as the next ones: a demo without payments
    alipay_url: str | None
    chain_url: str | None
    chain_token: str | None
    pid: int


async def run_demo(*, port: int, workers: int, token_latency_ms: float, with_payments: bool = False) -> None:
    """Run until Ctrl-C or SIGTERM, then leave nothing behind. Raises SettingsError when something is in the way."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    _refuse_a_second_one(port)
    async with AsyncExitStack() as stack:
        directory = ROOT / "demo"
        stack.callback(_remove_announcement)
        await _clear(directory)
        stack.push_async_callback(_clear, directory)
        directory.mkdir(parents=True)
        backend_url = await stack.enter_async_context(_simulated_backend(directory, token_latency_ms))
        file = _write_settings(directory, port=port, workers=workers, backend_url=backend_url)
        environment = dict(os.environ)
        providers: DemoProviders | None = None
        if with_payments:
            providers = await stack.enter_async_context(simulated_providers(directory, gate_port=port))
            environment |= providers.environment
            with file.open("a") as more:
                more.write(providers.settings)
        settings = load_settings(file, {})
        secret = secrets.token_urlsafe(32)
        url = await stack.enter_async_context(_own_database(settings))
        demo = await _furnish(url, secret, port=port, backend_url=backend_url, providers=providers)
        environment |= {"TOLLGATE_DATABASE_URL": url, "TOLLGATE_SECRET": secret}
        supervisor = Supervisor(settings, settings_arguments(file), environment)
        supervisor.start()
        stack.push_async_callback(supervisor.stop)
        await _wait_until_ready(demo.server_url, stop)
        if not stop.is_set():
            _announce(
                demo, "" if providers is None else how_to_pay(providers, base_url=demo.base_url, key=demo.api_key)
            )
        await stop.wait()


def _refuse_a_second_one(port: int) -> None:
    try:
        require_free_port("127.0.0.1", port)
    except SettingsError as error:
        raise SettingsError(f"{error}; another demo? Stop it, or choose another port with --port") from error
    try:
        running = msgspec.json.decode((ROOT / "demo.json").read_bytes(), type=Demo)
        os.kill(running.pid, 0)
    except (OSError, msgspec.DecodeError):
        return
    raise SettingsError(f"a demo runs in this directory already: process {running.pid} at {running.server_url}")


@asynccontextmanager
async def _own_database(settings: Settings) -> AsyncIterator[str]:
    try:
        async with database(settings, {}) as url:
            yield url
    except PostgresInUse as error:
        raise SettingsError(f"another demo is starting or running in this directory: {error}") from error


def _simulated_backend(directory: Path, token_latency_ms: float) -> AbstractAsyncContextManager[str]:
    return simulation(
        *("simulated_backend", "--models", ",".join(MODELS), "--token-latency-ms", str(token_latency_ms)),
        *("--context-length", str(CONTEXT_LENGTH), "--journal", str(directory / "backend.jsonl")),
    )


def _write_settings(directory: Path, *, port: int, workers: int, backend_url: str) -> Path:
    template = Template(resources.files("tollgate").joinpath("demo.toml").read_text())
    file = directory / "tollgate.toml"
    places = {"data_dir": directory / "postgres", "write_ahead_dir": directory / "write-ahead"}
    file.write_text(template.substitute(port=port, workers=workers, backend_url=backend_url, **places))
    return file


async def _furnish(url: str, secret: str, *, port: int, backend_url: str, providers: DemoProviders | None) -> Demo:
    """Prices, a rate for who pays in yuan, a customer with credit, and a key."""
    pool = await create_pool(url)
    ledger = await Ledger.open(pool, lambda: connect(url), utc_now)
    try:
        for model in MODELS:
            await _price(ledger, model)
        await _rate_yuan(ledger)
        tokens = Tokens(secret.encode())
        authenticator = Authenticator(ledger, tokens, clock=utc_now, monotonic=asyncio.get_running_loop().time)
        email, password = "demo@example.com", secrets.token_urlsafe(12)
        users = Users(ledger, tokens, Passwords(PasswordHasher()), currency="USD", clock=utc_now)
        registered = await users.register(email=email, name="Demo", password=password)
        await Operators(ledger, clock=utc_now).grant(
            registered.account.account_id, amount=CREDIT, reason="demo", granted_by="demo", idempotency_key="demo"
        )
        key = await Keys(ledger, tokens, authenticator, clock=utc_now).create(
            registered.account.account_id,
            user_id=registered.user.id,
            name="demo",
            rate_limit_rpm=None,
            monthly_budget=None,
        )
        service = await ServiceTokens(pool, tokens, clock=utc_now).create(name="demo", role="admin")
    finally:
        await ledger.close()
        await pool.close()
    return Demo(
        base_url=f"http://127.0.0.1:{port}/v1",
        server_url=f"http://127.0.0.1:{port}",
        api_key=key.secret,
        service_token=service.secret,
        account_id=registered.account.account_id,
        user_id=registered.user.id,
        email=email,
        password=password,
        models=list(MODELS),
        backend_url=backend_url,
        stripe_url=None if providers is None else providers.stripe_url,
        alipay_url=None if providers is None else providers.alipay_url,
        chain_url=None if providers is None else providers.chain.url,
        chain_token=None if providers is None else providers.chain.token,
        pid=os.getpid(),
    )


async def _price(ledger: Ledger, model: str) -> None:
    text = resources.files("tollgate").joinpath("demo_prices", f"{model}.toml").read_text()
    published = await publish(ledger, text, published_by="demo")
    now = utc_now()
    assignment = ProgramAssigned(
        program=published.program,
        version=published.version,
        model=model,
        effective_from=now + timedelta(milliseconds=1),
        assigned_by="demo",
    )
    await assign(ledger, assignment, now=now)


async def _rate_yuan(ledger: Ledger) -> None:
    now = utc_now()
    rate = RatePublished(
        currency="CNY",
        account_currency="USD",
        rate=DOLLARS_FOR_A_YUAN,
        effective_from=now + timedelta(milliseconds=1),
        published_by="demo",
    )
    await publish_rate(ledger, rate, now=now)


async def _wait_until_ready(server_url: str, stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    give_up_at = loop.time() + READY_WITHIN_S
    async with aiohttp.ClientSession() as session:
        while not stop.is_set():
            try:
                async with session.get(f"{server_url}/ready") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            if loop.time() > give_up_at:
                raise SettingsError(f"the server was not ready within {READY_WITHIN_S:.0f} s; its log is above")
            await asyncio.sleep(0.05)


def _announce(demo: Demo, paying: str) -> None:
    ROOT.mkdir(exist_ok=True)
    file = ROOT / "demo.json"
    draft = file.with_suffix(".draft")
    draft.touch(mode=0o600)
    draft.write_bytes(msgspec.json.format(msgspec.json.encode(demo), indent=2) + b"\n")
    draft.rename(file)  # whoever waits for the file finds it whole
    sys.stdout.write(
        f"""
Tollgate is ready at {demo.server_url}, with 10.00 USD of credit. All of this is in {file}.

  curl {demo.base_url}/chat/completions \\
    -H "Authorization: Bearer {demo.api_key}" -H "Content-Type: application/json" \\
    -d '{{"model": "{demo.models[0]}", "messages": [{{"role": "user", "content": "Hello"}}]}}'

  curl {demo.base_url}/users/me -H "Authorization: Bearer {demo.api_key}"

  from openai import OpenAI
  client = OpenAI(base_url="{demo.base_url}", api_key="{demo.api_key}")
  messages = [{{"role": "user", "content": "Hello"}}]
  answer = client.chat.completions.create(model="{demo.models[0]}", messages=messages)
  print(answer.choices[0].message.content, answer.usage)

{paying}Ctrl-C stops it and leaves nothing behind.
"""
    )
    sys.stdout.flush()


async def _clear(directory: Path) -> None:
    """Delete what a demo keeps, of this one or of one that was killed."""
    try:
        await delete_cluster(directory / "postgres")
    except PostgresInUse as error:
        raise SettingsError(f"another demo is running in this directory: {error}") from error
    shutil.rmtree(directory, ignore_errors=True)


def _remove_announcement() -> None:
    (ROOT / "demo.json").unlink(missing_ok=True)
    if ROOT.is_dir() and not any(ROOT.iterdir()):
        ROOT.rmdir()
