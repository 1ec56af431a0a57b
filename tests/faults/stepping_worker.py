"""``python -m tests.faults.stepping_worker``: a gate worker whose clock is off by what a file says at the moment."""

import argparse
import mmap
import os
import struct
from datetime import datetime, timedelta
from pathlib import Path

from tollgate.app import utc_now
from tollgate.payments_config import payments_config
from tollgate.processes import run_gate_worker
from tollgate.settings import load_settings, server_secret

_OFFSET = struct.Struct("<q")


def write_offset(file: Path, seconds: int) -> None:
    """Step the clock of the worker that looks at this file."""
    with file.open("r+b" if file.exists() else "w+b") as opened:
        opened.write(_OFFSET.pack(seconds))


class SteppingClock:
    """The time of day, off by the seconds in a file that another process may change at any time."""

    def __init__(self, file: Path) -> None:
        with file.open("rb") as opened:
            self._memory = mmap.mmap(opened.fileno(), _OFFSET.size, access=mmap.ACCESS_READ)

    def __call__(self) -> datetime:
        return utc_now() + timedelta(seconds=_OFFSET.unpack(self._memory[:])[0])


def main() -> None:
    """As ``tollgate gate-worker``; the database and the secret come by the environment."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--clock-offset", type=Path, required=True, help="file with a signed 64-bit count of seconds")
    options = parser.parse_args()
    settings = load_settings(options.config)
    run_gate_worker(
        settings,
        database_url=os.environ["TOLLGATE_DATABASE_URL"],
        secret=server_secret(settings),
        payments=payments_config(settings),
        clock=SteppingClock(options.clock_offset),
    )


if __name__ == "__main__":
    main()
