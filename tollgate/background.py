"""The background process: projections, the sweep, answers, payments, reconciliations, notices. Any number may run."""

import asyncio
from contextlib import AsyncExitStack
from datetime import datetime

import asyncpg
import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from prometheus_client import Counter, Gauge

from inference_proxy import KEPT_FOR, AnswerStore, PriceFeed
from ledger import UNREACHABLE, Ledger, LedgerError, Sweeper, expire_grants
from notices import Courier, CourierConfig, open_courier
from payments import AutomaticTopups, Inbox, PaymentsConfig, Roads, UsdcConfig, open_roads
from payments.reconciliation import DailyReconciliation
from projections import ProjectionRunner
from tollgate.app import utc_now
from tollgate.database import CLOSE_WITHIN_S, close_pool, connect, create_pool
from tollgate.notice_jobs import schedule_notices
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

_log = structlog.get_logger(__name__)
_PASSING = (*UNREACHABLE, LedgerError)


async def run_background(
    database_url: str, stop: asyncio.Event, payments: PaymentsConfig, notices: CourierConfig
) -> None:
    """Work until told to stop."""
    async with AsyncExitStack() as stack:
        pool = await create_pool(database_url)
        stack.push_async_callback(close_pool, pool)
        ledger = await Ledger.open(pool, lambda: connect(database_url), utc_now)
        stack.push_async_callback(ledger.close)
        roads = await stack.enter_async_context(open_roads(payments, ledger, utc_now))
        courier = await stack.enter_async_context(open_courier(notices, ledger, utc_now))
        scheduler = AsyncIOScheduler(timezone="UTC")
        if payments.usdc is not None:
            await _watch_chains(payments.usdc, ledger, scheduler, stack)
        sources = await stack.enter_async_context(open_sources(payments, roads, ledger))
        daily = DailyReconciliation(ledger, sources.values(), utc_now)
        scheduler.add_job(_reconcile, "interval", [daily], seconds=RECONCILE_EVERY_S, next_run_time=utc_now())
        await _work(pool, ledger, roads, courier, scheduler, stop)


async def _watch_chains(config: UsdcConfig, ledger: Ledger, scheduler: AsyncIOScheduler, stack: AsyncExitStack) -> None:
    from tollgate.watching import look, open_watchers  # brings web3, which no serving process imports

    prices = PriceFeed(ledger)
    await prices.refresh()
    following = asyncio.create_task(prices.follow(), name="prices")
    stack.push_async_callback(_cancel, following)
    watchers = await stack.enter_async_context(open_watchers(config.chains, ledger, prices.book.exchange_rate, utc_now))
    for watcher in watchers:
        scheduler.add_job(look, "interval", [watcher], seconds=LOOK_EVERY_S, next_run_time=utc_now())


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _work(
    pool: asyncpg.Pool,
    ledger: Ledger,
    roads: Roads,
    courier: Courier,
    scheduler: AsyncIOScheduler,
    stop: asyncio.Event,
) -> None:
    runner = ProjectionRunner(pool)
    sweeper = Sweeper(pool, ledger.submit)
    scheduler.add_job(_sweep, "interval", [sweeper], seconds=SWEEP_EVERY_S, next_run_time=utc_now())
    scheduler.add_job(_measure, "interval", [runner], seconds=MEASURE_EVERY_S)
    scheduler.add_job(_expire, "interval", [ledger], seconds=EXPIRE_EVERY_S)
    scheduler.add_job(_purge, "interval", [AnswerStore(ledger)], seconds=PURGE_EVERY_S)
    if roads.stripe is not None:
        scheduler.add_job(_top_up, "interval", [roads.stripe.automatic], seconds=TOP_UP_EVERY_S)
    for inbox in roads.inboxes.values():
        scheduler.add_job(_process, "interval", [inbox], seconds=PROCESS_EVERY_S)
    schedule_notices(scheduler, ledger, courier)
    scheduler.start()
    projecting = asyncio.create_task(runner.run(), name="projections")
    try:
        await stop.wait()
    finally:
        scheduler.shutdown(wait=False)
        projecting.cancel()
        # A cancellation that meets a connection which breaks can be lost in it; the pool is closed under it then.
        await asyncio.wait({projecting}, timeout=CLOSE_WITHIN_S)


async def _sweep(sweeper: Sweeper) -> None:
    now: datetime = utc_now()
    try:
        SWEPT.inc(await sweeper.sweep(now))
    except _PASSING as error:
        _log.warning("sweep.interrupted", error=repr(error))


async def _expire(ledger: Ledger) -> None:
    try:
        EXPIRED.inc(await expire_grants(ledger, utc_now()))
    except _PASSING as error:
        _log.warning("grants.not_expired", error=repr(error))


async def _purge(answers: AnswerStore) -> None:
    try:
        await answers.purge(utc_now() - KEPT_FOR)
    except _PASSING as error:
        _log.warning("answers.not_purged", error=repr(error))


async def _process(inbox: Inbox) -> None:
    try:
        while await inbox.process_waiting():
            pass
    except _PASSING as error:
        _log.warning("payments.not_processed", error=repr(error))


async def _reconcile(daily: DailyReconciliation) -> None:
    try:
        await daily.run()
        await daily.measure()
    except _PASSING as error:
        _log.warning("reconciliation.interrupted", error=repr(error))


async def _top_up(automatic: AutomaticTopups) -> None:
    try:
        await automatic.run()
    except _PASSING as error:
        _log.warning("automatic_topups.interrupted", error=repr(error))


async def _measure(runner: ProjectionRunner) -> None:
    try:
        lag = await runner.lag(utc_now())
    except _PASSING as error:
        _log.warning("lag.not_measured", error=repr(error))
    else:
        LAG_EVENTS.set(lag.events)
        LAG_SECONDS.set(lag.seconds)
