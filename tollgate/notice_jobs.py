"""What the background process does for notices: make them, deliver them, forget them."""

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from ledger import UNREACHABLE, Ledger
from notices import KEPT_FOR, OLDEST, WAITING, Courier, NoticeMaker, Outbox
from tollgate.app import utc_now

#: A notice is made and sent within about two of these.
WORK_EVERY_S = 1
MEASURE_EVERY_S = 2
PURGE_EVERY_S = 600

_log = structlog.get_logger(__name__)


def schedule_notices(scheduler: AsyncIOScheduler, ledger: Ledger, courier: Courier) -> None:
    """Add the jobs. Any number of processes may have them."""
    outbox = Outbox(ledger)
    scheduler.add_job(_make, "interval", [NoticeMaker(ledger.pool)], seconds=WORK_EVERY_S)
    scheduler.add_job(_deliver, "interval", [courier], seconds=WORK_EVERY_S)
    scheduler.add_job(_measure, "interval", [outbox], seconds=MEASURE_EVERY_S)
    scheduler.add_job(_purge, "interval", [outbox], seconds=PURGE_EVERY_S)


async def _make(maker: NoticeMaker) -> None:
    try:
        await maker.catch_up()
    except UNREACHABLE as error:
        _log.warning("notices.not_made", error=repr(error))


async def _deliver(courier: Courier) -> None:
    try:
        await courier.begin()
    except UNREACHABLE as error:
        _log.warning("notices.not_taken", error=repr(error))


async def _measure(outbox: Outbox) -> None:
    try:
        waiting, seconds = await outbox.waiting(utc_now())
    except UNREACHABLE as error:
        _log.warning("notices.not_measured", error=repr(error))
    else:
        WAITING.set(waiting)
        OLDEST.set(seconds)


async def _purge(outbox: Outbox) -> None:
    try:
        await outbox.purge(utc_now() - KEPT_FOR)
    except UNREACHABLE as error:
        _log.warning("notices.not_purged", error=repr(error))
