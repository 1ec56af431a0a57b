"""A process that is started again whenever it ends, until it is told to stop."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.acceptance.running_demo import end_with_the_tests

ROOT = Path(__file__).parents[2]
RESTART_AFTER_S = 0.3
#: A worker drains for so long (``server.drain_s`` of our settings) and a little more.
STOP_WITHIN_S = 30.0


class KeptProcess:
    """``python -m`` with these arguments. What it prints is appended to a file."""

    def __init__(self, name: str, arguments: Sequence[str], environment: Mapping[str, str], directory: Path) -> None:
        self.name = name
        self._arguments = arguments
        # The modules of this tree, and a working directory that no other installation shares.
        self._environment = {**os.environ, **environment, "PYTHONPATH": str(ROOT)}
        self._directory = directory
        self.log = directory / f"{name}.log"
        self._stopping = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None

    def start(self) -> None:
        self._keeping = asyncio.create_task(self._keep(), name=self.name)

    def send(self, number: signal.Signals) -> None:
        """Signal the process that runs now, if one does."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def stop(self) -> None:
        """SIGTERM, and what it takes after that. Returns when it is gone."""
        self._stopping.set()
        self.send(signal.SIGTERM)
        try:
            await asyncio.wait_for(asyncio.shield(self._keeping), STOP_WITHIN_S)
        except TimeoutError:
            self.send(signal.SIGKILL)
            await self._keeping

    async def _keep(self) -> None:
        while not self._stopping.is_set():
            with self.log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    *self._arguments,
                    cwd=self._directory,
                    env=self._environment,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C is the harness's own
                    preexec_fn=end_with_the_tests,
                )
            if self._stopping.is_set():
                self.send(signal.SIGTERM)
            await self._process.wait()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), RESTART_AFTER_S)
