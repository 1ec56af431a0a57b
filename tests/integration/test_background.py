"""The background process: a job that fails is done again, and without projections there is no process."""

import asyncio

import pytest
from structlog.testing import capture_logs

from notices import CourierConfig, Targets
from payments import PaymentsConfig
from tests.acceptance.running_demo import until
from tollgate.background import run_background
from tollgate.jobs import Jobs


async def test_a_job_that_fails_is_logged_and_done_again() -> None:
    troubles: list[Exception] = [OSError("away"), ValueError("a bug")]
    is_done = asyncio.Event()

    async def work() -> None:
        if troubles:
            raise troubles.pop(0)
        is_done.set()

    jobs = Jobs()
    jobs.add("work", work, every_s=0.01)
    with capture_logs() as logs:
        jobs.start()
        async with asyncio.timeout(60):
            await is_done.wait()
        jobs.stop()

    told = [(log["event"], log["job"], log["log_level"]) for log in logs]
    assert told == [("job.interrupted", "work", "warning"), ("job.failed", "work", "error")]


async def test_a_process_whose_projections_end_ends(database_url: str) -> None:
    targets = Targets(allow_http=False, allow_private=False)
    notices = CourierConfig(server_secret=b"a server secret of 32 bytes ....", targets=targets)
    process = asyncio.create_task(run_background(database_url, asyncio.Event(), PaymentsConfig(), notices))

    async def is_projecting() -> bool:
        return any(task.get_name() == "projections" for task in asyncio.all_tasks())

    await until(is_projecting)
    (projections,) = [task for task in asyncio.all_tasks() if task.get_name() == "projections"]
    projections.cancel()

    with pytest.raises(RuntimeError, match="projections"):
        await asyncio.wait_for(process, 60)
