"""What the background process does for notices: make them, deliver them, forget them."""

from functools import partial

from ledger import Ledger
from notices import KEPT_FOR, OLDEST, WAITING, Courier, NoticeMaker, Outbox
from tollgate.app import utc_now
from tollgate.jobs import Jobs

#: A notice is made and sent within about two of these.
WORK_EVERY_S = 1
MEASURE_EVERY_S = 2
PURGE_EVERY_S = 600


def add_notice_jobs(jobs: Jobs, ledger: Ledger, courier: Courier) -> None:
    """Any number of processes may have them."""
    outbox = Outbox(ledger)
    jobs.add("make notices", NoticeMaker(ledger.pool).catch_up, every_s=WORK_EVERY_S)
    jobs.add("deliver notices", courier.begin, every_s=WORK_EVERY_S)
    jobs.add("measure notices", partial(_measure, outbox), every_s=MEASURE_EVERY_S)
    jobs.add("purge notices", lambda: outbox.purge(utc_now() - KEPT_FOR), every_s=PURGE_EVERY_S)


async def _measure(outbox: Outbox) -> None:
    waiting, seconds = await outbox.waiting(utc_now())
    WAITING.set(waiting)
    OLDEST.set(seconds)
