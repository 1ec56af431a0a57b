"""A log that cannot be written stops no work."""

import subprocess
import sys

PROGRAM = """
import structlog
from tollgate.logging import log_to_stdout
log_to_stdout()
structlog.get_logger().info("thing.done")
structlog.get_logger().error("thing.failed")
raise SystemExit(7)
"""


def test_a_line_that_cannot_be_written_is_lost_and_nothing_else() -> None:
    with open("/dev/full", "wb") as full:
        ended = subprocess.run([sys.executable, "-c", PROGRAM], stdout=full, stderr=subprocess.PIPE, check=False)

    assert (ended.returncode, ended.stderr) == (7, b"")
