"""The daily comparison: each day once, whoever does it, and again as long as something is open or late."""

import asyncio
from datetime import date, timedelta

import asyncpg
import pytest
from structlog.testing import capture_logs

from payments.reconciliation import DailyReconciliation
from payments.reconciliation.metrics import LAST_GOOD_RUN, OPEN_BREAKS

from .conftest import Till
from .finance import TODAY, Finance


@pytest.fixture
def finance(till: Till) -> Finance:
    return Finance(till)


def daily(till: Till) -> DailyReconciliation:
    return DailyReconciliation(till.ledger, [till.road.statements], till.clock)


async def test_workers_reconcile_a_day_once(finance: Finance, till: Till) -> None:
    finance.balance.plant_payment(900, "usd")
    till.clock.now = TODAY.end + timedelta(hours=1)

    done = await asyncio.gather(*[daily(till).run() for _ in range(4)])

    assert sorted(done) == [0, 0, 0, 1]
    assert [request["path"] for request in till.stripe.requests].count("/v1/balance_transactions") == 1
    (run,) = await daily(till).runs()
    assert (run.provider, run.day, run.matched, len(run.breaks), run.problem) == (
        "stripe",
        date(2026, 11, 21),
        1,
        1,
        None,
    )


async def test_a_day_that_somebody_is_taking_is_left_to_them(
    finance: Finance, till: Till, admin: asyncpg.Connection
) -> None:
    till.clock.now = TODAY.end + timedelta(hours=1)
    await admin.execute("INSERT INTO reconciliation_runs (provider, day, next_at) VALUES ('stripe', $1, $2)",
                        date(2026, 11, 21), till.clock.now)  # fmt: skip

    async with admin.transaction(), asyncio.timeout(30):
        await admin.execute("SELECT FROM reconciliation_runs FOR UPDATE")
        assert await asyncio.gather(*[daily(till).run() for _ in range(3)]) == [0, 0, 0]
    assert sorted(await asyncio.gather(*[daily(till).run() for _ in range(3)])) == [0, 0, 1]


async def test_a_day_is_looked_at_again_when_late_items_are_in_and_daily_while_a_break_is_open(
    finance: Finance, till: Till
) -> None:
    finance.balance.plant_payment(900, "usd")
    till.clock.now = TODAY.end + timedelta(hours=1)
    job, days = daily(till), []
    for _ in range(8):
        await job.run()
        days.append(next(run.tries for run in await job.runs() if run.day == date(2026, 11, 21)))
        till.clock.advance(days=1)
    ((break_id, *_), *_) = [run.breaks for run in await job.runs() if run.breaks]
    await finance.reconciler.resolve(break_id, reason="a donation", resolved_by="ann")
    await job.run()
    (last,) = [run for run in await job.runs() if run.day == date(2026, 11, 21)]

    assert days == [1, 1, 1, 1, 2, 3, 4, 5]
    assert (last.tries, last.next_at, last.breaks) == (6, None, [break_id])


async def test_a_day_that_could_not_be_reconciled_says_why_and_is_tried_again(finance: Finance, till: Till) -> None:
    till.clock.now = TODAY.end + timedelta(hours=1)
    till.stripe_fails(status=401)
    job = daily(till)
    with capture_logs() as logs:
        await job.run()
    (failed,) = await job.runs()
    till.stripe_fails()
    await job.run()
    (too_early,) = await job.runs()
    till.clock.advance(minutes=16)
    await job.run()
    (done,) = await job.runs()

    assert [log["event"] for log in logs] == ["reconciliation.failed"]
    assert (failed.finished_at, failed.problem is None) == (too_early.finished_at, False) == (None, False)
    assert (done.problem, done.tries) == (None, 2)
    assert done.finished_at is not None


async def test_days_in_which_no_worker_ran_are_taken_up(finance: Finance, till: Till) -> None:
    job = daily(till)
    till.clock.now = TODAY.end + timedelta(hours=1)
    await job.run()
    till.clock.advance(days=3)
    await job.run()

    assert [run.day.day for run in await job.runs()] == [24, 23, 22, 21]


async def test_a_day_whose_worker_died_is_taken_by_another(
    finance: Finance, till: Till, admin: asyncpg.Connection
) -> None:
    till.clock.now = TODAY.end + timedelta(hours=1)
    till.stripe_fails(hang_s=600)
    dying = asyncio.create_task(daily(till).run())
    async with asyncio.timeout(30):
        while not await admin.fetchval("SELECT count(*) FROM reconciliation_runs WHERE tries = 1"):
            pass
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    till.stripe_fails()

    assert await daily(till).run() == 0
    till.clock.advance(minutes=31)
    assert await daily(till).run() == 1


async def test_metrics_say_what_is_open_and_how_old_the_last_good_run_is(finance: Finance, till: Till) -> None:
    finance.balance.plant_payment(900, "usd")
    finance.balance.plant_payment(901, "usd")
    till.clock.now = TODAY.end + timedelta(hours=1)
    job = daily(till)
    await job.run()
    (run,) = await job.runs()
    await finance.reconciler.resolve(run.breaks[0], reason="a donation", resolved_by="ann")
    till.clock.advance(seconds=90)
    await job.measure()

    assert OPEN_BREAKS.labels("stripe", "missing_here")._value.get() == 1
    assert OPEN_BREAKS.labels("stripe", "missing_there")._value.get() == 0
    assert LAST_GOOD_RUN.labels("stripe")._value.get() == 90
