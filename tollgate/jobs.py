"""What a process does again and again. Whatever goes wrong with a job is logged, and it is due again."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from ledger import UNREACHABLE, LedgerError
from payments import PaymentsError
from tollgate.app import utc_now

Work: TypeAlias = Callable[[], Awaitable[object]]

#: What is over by itself, or counted and logged where it was found.
_PASSING = (*UNREACHABLE, LedgerError, PaymentsError)
_log = structlog.get_logger(__name__)


class Jobs:
    """Jobs of one process, each never twice at once."""

    def __init__(self) -> None:
        # A job that takes longer than until it is due again is not late: it is just done again afterwards.
        self._scheduler = AsyncIOScheduler(timezone="UTC", job_defaults={"coalesce": True, "misfire_grace_time": None})

    def add(self, name: str, work: Work, *, every_s: float) -> None:
        """Do it at once, and then every so many seconds."""
        self._scheduler.add_job(_done, "interval", [name, work], seconds=every_s, name=name, next_run_time=utc_now())

    def start(self) -> None:
        self._scheduler.start()

    def stop(self) -> None:
        """Begin nothing more."""
        self._scheduler.shutdown(wait=False)


async def _done(name: str, work: Work) -> None:
    try:
        await work()
    except _PASSING as error:
        _log.warning("job.interrupted", job=name, error=repr(error))
    except Exception:
        _log.exception("job.failed", job=name)
