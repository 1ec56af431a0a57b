"""The background process: projections, the sweep, answers, payments, reconciliations, notices. Any number may run."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial

import asyncpg
from prometheus_client import Counter, Gauge

from inference_proxy import KEPT_FOR, AnswerStore, PriceFeed
from ledger import Ledger, Sweeper, expire_grants
from notices import CourierConfig, open_courier
from payments import Inbox, PaymentsConfig, Roads, UsdcConfig, open_roads
from payments.reconciliation import DailyReconciliation
from projections import ProjectionRunner
from tollgate.app import utc_now
from tollgate.database import CLOSE_WITHIN_S, close_pool, connect, create_pool
from tollgate.jobs import Jobs
from tollgate.notice_jobs import add_notice_jobs
from tollgate.sources import open_sources

#: A hold outlives its dead worker by two to three of these.
SWEEP_EVERY_S = 2
MEASURE_EVERY_S = 2
#: Nothing waits for it but the books.
EXPIRE_EVERY_S = 5
PURGE_EVERY_S = 600
#: Notifications that were answered and then not processed.
PROCESS_EVERY_S = 2
#: Days whose books are closed, or that are due again.
RECONCILE_EVERY_S = 60
#: Accounts whose balance may have fallen below the threshold of their automatic top-ups.
TOP_UP_EVERY_S = 5
#: Whether a chain is due, or a push has come: a question to Postgres, not to the chain.
LOOK_EVERY_S = 1

LAG_EVENTS = Gauge("tollgate_projection_lag_events", "Events not in the usage rows yet.", multiprocess_mode="livemax")
LAG_SECONDS = Gauge("tollgate_projection_lag_seconds", "Age of the oldest of them.", multiprocess_mode="livemax")
SWEPT = Counter("tollgate_swept_holds_total", "Holds ended because nobody was left to end them.")
EXPIRED = Counter("tollgate_expired_grants_total", "Credit grants of which something expired unspent.")


async def run_background(
    database_url: str, stop: asyncio.Event, payments: PaymentsConfig, notices: CourierConfig
) -> None:
    """Work until told to stop. Raises what ends the projections, which nothing but being told to stop should."""
    async with AsyncExitStack() as stack:
        pool = await create_pool(database_url)
        stack.push_async_callback(close_pool, pool)
        ledger = await Ledger.open(pool, lambda: connect(database_url), utc_now)
        stack.push_async_callback(ledger.close)
        roads = await stack.enter_async_context(open_roads(payments, ledger, utc_now))
        courier = await stack.enter_async_context(open_courier(notices, ledger, utc_now))
        sources = await stack.enter_async_context(open_sources(payments, roads, ledger))
        jobs = Jobs()
        runner = ProjectionRunner(pool)
        _add_ledger_jobs(jobs, pool, ledger, runner)
        _add_payment_jobs(jobs, ledger, roads, DailyReconciliation(ledger, sources.values(), utc_now))
        add_notice_jobs(jobs, ledger, courier)
        if payments.usdc is not None:
            await _watch_chains(payments.usdc, ledger, jobs, stack)
        jobs.start()
        stack.callback(jobs.stop)
        await _project(runner, stop)


def _add_ledger_jobs(jobs: Jobs, pool: asyncpg.Pool, ledger: Ledger, runner: ProjectionRunner) -> None:
    sweeper, answers = Sweeper(pool, ledger.submit), AnswerStore(ledger)
    jobs.add("sweep", partial(_sweep, sweeper), every_s=SWEEP_EVERY_S)
    jobs.add("expire grants", partial(_expire, ledger), every_s=EXPIRE_EVERY_S)
    jobs.add("measure lag", partial(_measure, runner), every_s=MEASURE_EVERY_S)
    jobs.add("purge answers", lambda: answers.purge(utc_now() - KEPT_FOR), every_s=PURGE_EVERY_S)


def _add_payment_jobs(jobs: Jobs, ledger: Ledger, roads: Roads, daily: DailyReconciliation) -> None:
    for provider, inbox in roads.inboxes.items():
        jobs.add(f"process {provider}", partial(_process, inbox), every_s=PROCESS_EVERY_S)
    if roads.stripe is not None:
        jobs.add("automatic top-ups", roads.stripe.automatic.run, every_s=TOP_UP_EVERY_S)
    jobs.add("reconcile", partial(_reconcile, daily), every_s=RECONCILE_EVERY_S)


async def _watch_chains(config: UsdcConfig, ledger: Ledger, jobs: Jobs, stack: AsyncExitStack) -> None:
    from tollgate.watching import open_watchers  # brings web3, which no serving process imports

    prices = PriceFeed(ledger)
    await prices.refresh()
    following = asyncio.create_task(prices.follow(), name="prices")
    stack.push_async_callback(_cancel, following)
    watchers = await stack.enter_async_context(open_watchers(config.chains, ledger, prices.book.exchange_rate, utc_now))
    for watcher in watchers:
        jobs.add(f"watch {watcher.chain.name}", watcher.look_if_due, every_s=LOOK_EVERY_S)


async def _project(runner: ProjectionRunner, stop: asyncio.Event) -> None:
    """Until told to stop, or until that ends by itself: then the process ends too, for another one to begin anew."""
    projecting = asyncio.create_task(runner.run(), name="projections")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({projecting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if projecting.done():
            raise RuntimeError("the projections have ended") from _why(projecting)
    finally:
        stopping.cancel()
        projecting.cancel()
        # A cancellation that meets a connection which breaks can be lost in it; the pool is closed under it then.
        await asyncio.wait({projecting}, timeout=CLOSE_WITHIN_S)


def _why(ended: asyncio.Task[None]) -> BaseException | None:
    return None if ended.cancelled() else ended.exception()


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _sweep(sweeper: Sweeper) -> None:
    SWEPT.inc(await sweeper.sweep(utc_now()))


async def _expire(ledger: Ledger) -> None:
    EXPIRED.inc(await expire_grants(ledger, utc_now()))


async def _process(inbox: Inbox) -> None:
    while await inbox.process_waiting():
        pass


async def _reconcile(daily: DailyReconciliation) -> None:
    await daily.run()
    await daily.measure()


async def _measure(runner: ProjectionRunner) -> None:
    lag = await runner.lag(utc_now())
    LAG_EVENTS.set(lag.events)
    LAG_SECONDS.set(lag.seconds)
