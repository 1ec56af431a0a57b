"""What can go wrong with the embedded server.

EmbeddedPostgresError      also raised itself, for a directory, a file or an installation that cannot be used
├── PostgresInUse          another server holds the data directory
├── PostgresStartFailed    the server (or initdb) did not come up; carries the end of its log
└── PostgresStopFailed     processes of the server outlive SIGKILL
"""

from pathlib import Path
from typing import Final

LOG_TAIL_LINES: Final = 20


class EmbeddedPostgresError(Exception):
    """The root of what this package raises; by itself it names something on disk that a person has to put right."""


class PostgresInUse(EmbeddedPostgresError):
    """A live server holds the data directory. Stop it, or choose another directory.

    ``pid`` is its postmaster, None while that one is just starting; ``owner_pid`` the process that started it, None
    when that was not this package.
    """

    def __init__(self, data_dir: Path, *, pid: int | None, owner_pid: int | None) -> None:
        server = f"a running Postgres (pid {pid})" if pid else "a Postgres that is just starting"
        owner = f", started by process {owner_pid}" if owner_pid else ""
        super().__init__(f"{data_dir} is in use by {server}{owner}")
        self.data_dir = data_dir
        self.pid = pid
        self.owner_pid = owner_pid


class PostgresStartFailed(EmbeddedPostgresError):
    """The server or initdb ended, or stayed silent past its timeout. ``log_tail`` is the end of what it said."""

    def __init__(self, reason: str, log_path: Path) -> None:
        lines = log_path.read_text(errors="replace").splitlines()
        self.log_tail = "\n".join(lines[-LOG_TAIL_LINES:])
        super().__init__(f"{reason}; the end of {log_path}:\n{self.log_tail or '(empty)'}")


class PostgresStopFailed(EmbeddedPostgresError):
    """Processes of the server are still there although they were sent SIGKILL (stuck on a dead disk)."""
