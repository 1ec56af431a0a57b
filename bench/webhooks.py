"""(h) Payments credited per second: webhooks verified, stored, answered and booked, against the least that shops do.

The least is a handler that verifies the same signature and, in one transaction, remembers the event's id and raises a
balance: no copy of what was told, no comparison with what was asked, no books. Both are in this process, in turns, over
real sockets and the same Postgres; a round ends when all of its payments are credited.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import TypeAlias

import aiohttp
import asyncpg
import msgspec
import stripe
from aiohttp import web
from aiohttp.test_utils import TestServer

from accounts import Authenticator, Tokens
from bench.measured import Measured
from ledger import Ledger, OpenAccount, Paid, RequestTopup, microcents_from_cents, new_id
from payments import StripeConfig, open_stripe, stripe_routes
from simulated_stripe.webhooks import signature
from tollgate.app import utc_now
from tollgate.database import connect, create_pool
from tollgate.embedded_postgres import EmbeddedPostgres
from tollgate.migrate import migrate
from wire import mount

SECRET = "whsec_bench"
ROUNDS = 5
WEBHOOKS = 1_000
AT_ONCE = 32
ACCOUNTS = 100
CENTS = 2_500
PATH = "/v1/topup/stripe/webhook"

SEE_ONCE = "INSERT INTO seen VALUES ($1) ON CONFLICT DO NOTHING RETURNING true"
RAISE = """INSERT INTO balances AS b VALUES ($1, $2)
           ON CONFLICT (account_id) DO UPDATE SET cents = b.cents + excluded.cents"""

#: Where to deliver, and what to wait for after the last answer.
Way: TypeAlias = tuple[str, Callable[[], Awaitable[None]]]


async def measure(directory: Path) -> Measured:
    """Run on a Postgres of its own in ``directory``, durable as in production. Samples are payments per second."""
    async with await EmbeddedPostgres.start(directory / "webhooks-postgres") as server:
        owner = await asyncpg.connect(server.url)
        await migrate(owner)
        pool = await create_pool(server.url)
        ledger = await Ledger.open(pool, lambda: connect(server.url), utc_now)
        accounts = [new_id("acct") for _ in range(ACCOUNTS)]
        await asyncio.gather(*[ledger.submit(OpenAccount(stream_id=each, currency="USD")) for each in accounts])
        samples: dict[str, list[float]] = {"ours": [], "least": []}
        async with _ours(ledger) as ours, _least(owner, pool) as least:
            for _ in range(ROUNDS):
                bodies = await _asked(ledger, accounts)
                samples["ours"].append(await _rate(ours, bodies))
                samples["least"].append(await _rate(least, bodies))
            await _require_all_credited(pool)
        await ledger.close()
        await pool.close()
        await owner.close()
    ratios = [ours / least for ours, least in zip(samples["ours"], samples["least"], strict=True)]
    return Measured({"webhooks_ratio": statistics.median(ratios)}, samples)


@asynccontextmanager
async def _ours(ledger: Ledger) -> AsyncIterator[Way]:
    config = StripeConfig(
        api_key="sk_bench",
        webhook_secrets=(SECRET,),
        success_url="http://127.0.0.1/",
        minimum=microcents_from_cents(1),
        maximum=microcents_from_cents(100_000),
    )
    authenticator = Authenticator(ledger, Tokens(b"b" * 32), clock=utc_now, monotonic=time.monotonic)
    async with open_stripe(config, ledger, utc_now) as road:
        app = web.Application()
        mount(app, stripe_routes(ledger, authenticator, road))
        async with TestServer(app) as server:
            yield str(server.make_url(PATH)), road.inbox.close


@asynccontextmanager
async def _least(owner: asyncpg.Connection, pool: asyncpg.Pool) -> AsyncIterator[Way]:
    await owner.execute(
        "CREATE TABLE seen (event_id text PRIMARY KEY);"
        " CREATE TABLE balances (account_id text PRIMARY KEY, cents bigint);"
        " GRANT ALL ON seen, balances TO PUBLIC"
    )

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        stripe.WebhookSignature.verify_header(body.decode(), request.headers["Stripe-Signature"], SECRET, 300)
        event = msgspec.json.decode(body)
        session = event["data"]["object"]
        async with pool.acquire() as connection, connection.transaction():
            if await connection.fetchval(SEE_ONCE, event["id"]):
                await connection.execute(RAISE, session["metadata"]["tollgate_account"], session["amount_total"])
        return web.Response()

    app = web.Application()
    app.router.add_post(PATH, take)
    async with TestServer(app) as server:
        yield str(server.make_url(PATH)), _nothing


async def _asked(ledger: Ledger, accounts: list[str]) -> list[bytes]:
    """Ask for top-ups; the bodies of the events that say that they were paid."""
    wanted = [(accounts[nth % len(accounts)], new_id("topup")) for nth in range(WEBHOOKS)]
    await asyncio.gather(
        *[
            ledger.submit(
                RequestTopup(
                    stream_id=account_id,
                    topup_id=topup_id,
                    provider="stripe",
                    amount_microcents=microcents_from_cents(CENTS),
                    asked=Paid("USD", Decimal("25.00")),
                    requested_by="bench",
                    idempotency_key=topup_id,
                )
            )
            for account_id, topup_id in wanted
        ]
    )
    return [msgspec.json.encode(_event(account_id, topup_id)) for account_id, topup_id in wanted]


def _event(account_id: str, topup_id: str) -> dict[str, object]:
    session = {
        "id": new_id("cs"),
        "object": "checkout.session",
        "mode": "payment",
        "status": "complete",
        "payment_status": "paid",
        "amount_total": CENTS,
        "currency": "usd",
        "payment_intent": new_id("pi"),
        "metadata": {"tollgate_account": account_id, "tollgate_topup": topup_id},
    }
    return {"id": new_id("evt"), "type": "checkout.session.completed", "data": {"object": session}}


async def _rate(way: Way, bodies: list[bytes]) -> float:
    """Payments credited per second, from the first delivery on."""
    url, all_booked = way
    waiting = iter(bodies)
    began = time.perf_counter()

    async def deliver(session: aiohttp.ClientSession) -> None:
        for body in waiting:
            headers = {"Stripe-Signature": signature(SECRET, body, int(time.time()))}
            async with session.post(url, data=body, headers=headers) as answer:
                answer.raise_for_status()

    async with aiohttp.ClientSession() as session:
        await asyncio.gather(*[deliver(session) for _ in range(AT_ONCE)])
    await all_booked()
    return len(bodies) / (time.perf_counter() - began)


async def _nothing() -> None:
    """It is booked when it is answered."""


async def _require_all_credited(pool: asyncpg.Pool) -> None:
    ours = await pool.fetchval("SELECT count(*) FROM topup_states WHERE status = 'credited'")
    least = await pool.fetchval("SELECT sum(cents) FROM balances") // CENTS
    if (ours, least) != (ROUNDS * WEBHOOKS, ROUNDS * WEBHOOKS):
        raise RuntimeError(f"of {ROUNDS * WEBHOOKS} payments {ours} and {least} were credited")
