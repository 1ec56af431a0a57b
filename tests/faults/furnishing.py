"""What is there before the first request: prices, accounts with more and with less money, keys with and without limits.

All of it is written as of ``SET_UP_AGO`` before now, so that a clock which steps back finds prices and accounts there
already.
"""

import asyncio
from datetime import datetime, timedelta
from importlib import resources

import msgspec

from accounts import Authenticator, Keys, Operators, Tokens, open_account
from ledger import Ledger, Microcents
from ledger.events import ProgramAssigned
from pricing.publishing import assign, publish
from tollgate.app import utc_now
from tollgate.database import connect, create_pool

SET_UP_AGO = timedelta(days=2)
MODELS = ("qwen3-32b", "deepseek-v3")
MICROCENTS_PER_CENT = 1_000_000

#: Account → (credit in cents, the monthly budget in cents and the requests a minute of each of its keys).
_ACCOUNTS: dict[str, tuple[int, list[tuple[int | None, int | None]]]] = {
    "rich": (100_000, [(None, None), (None, None), (3, None)]),
    "well off": (10_000, [(None, None), (None, 600)]),
    "modest": (20, [(None, None)]),
    "poor": (2, [(None, None), (1, None)]),
}


class Payer(msgspec.Struct, frozen=True):
    """A key that requests are made with, and whose it is."""

    account: str  # rich, poor …
    account_id: str
    key_id: str
    secret: str


async def furnish(url: str, secret: bytes) -> list[Payer]:
    """Prices for both models, the accounts, and all their keys."""
    set_up_at = utc_now() - SET_UP_AGO

    def clock() -> datetime:
        return set_up_at

    pool = await create_pool(url)
    ledger = await Ledger.open(pool, lambda: connect(url), clock)
    try:
        for model in MODELS:
            await _price(ledger, model, at=set_up_at)
        tokens = Tokens(secret)
        authenticator = Authenticator(ledger, tokens, clock=clock, monotonic=asyncio.get_running_loop().time)
        keys = Keys(ledger, tokens, authenticator, clock=clock)
        operators = Operators(ledger, clock=clock)
        return [payer for name in _ACCOUNTS for payer in await _open(name, ledger, operators, keys)]
    finally:
        await ledger.close()
        await pool.close()


async def _price(ledger: Ledger, model: str, *, at: datetime) -> None:
    text = resources.files("tollgate").joinpath("demo_prices", f"{model}.toml").read_text()
    published = await publish(ledger, text, published_by="faults")
    assignment = ProgramAssigned(
        program=published.program, version=published.version, model=model, effective_from=at, assigned_by="faults"
    )
    await assign(ledger, assignment, now=at)


async def _open(name: str, ledger: Ledger, operators: Operators, keys: Keys) -> list[Payer]:
    credit_cents, limits = _ACCOUNTS[name]
    account_id = (await open_account(ledger, currency="USD")).account_id
    credit = Microcents(credit_cents * MICROCENTS_PER_CENT)
    await operators.grant(account_id, amount=credit, reason="faults", granted_by="faults", idempotency_key=name)
    payers = []
    for budget_cents, rpm in limits:
        budget = None if budget_cents is None else Microcents(budget_cents * MICROCENTS_PER_CENT)
        key = await keys.create(account_id, user_id=None, name=name, rate_limit_rpm=rpm, monthly_budget=budget)
        payers.append(Payer(name, account_id, key.key_id, key.secret))
    return payers
