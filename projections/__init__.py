"""What the events add up to for people: usage lines and roll-ups, their runner, the rebuild and the check.

The states that decisions need live in ``ledger`` and are written with the events; everything here follows the log
behind a checkpoint, can be dropped at any time, and is the same again after a rebuild.
"""

from projections.check import NOT_DERIVED, Finding, check_books
from projections.rebuild import DERIVED_TABLES, rebuild
from projections.routes import usage_routes
from projections.runner import Follower, Lag, ProjectionRunner, catch_up

__all__ = [
    "DERIVED_TABLES",
    "NOT_DERIVED",
    "Finding",
    "Follower",
    "Lag",
    "ProjectionRunner",
    "catch_up",
    "check_books",
    "rebuild",
    "usage_routes",
]
