"""When a delivery that failed is tried again: the schedule that Standard Webhooks proposes. Pure."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final

#: After the first failure, the second … (https://github.com/standard-webhooks/standard-webhooks, "Deliverability and
#: reliability"). After the last of these the notice is given up, more than three days after the first try.
PAUSES: Final = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
#: Each pause is longer by up to this part of it, so that what failed together does not come back together.
JITTER = 0.2
#: A receiver cannot ask for more patience than this.
LONGEST_PAUSE = timedelta(hours=24)


def next_try(
    failures: int, now: datetime, *, asked: timedelta | None, spread: Callable[[], float] = random.random
) -> datetime | None:
    """When to try again after so many failures in a row; None: no more.

    Never sooner than the schedule, or a receiver could use all its tries up within a minute; as much later as the
    receiver ``asked`` for, up to LONGEST_PAUSE. ``spread`` gives numbers from 0 to 1.
    """
    if failures > len(PAUSES):
        return None
    pause = PAUSES[failures - 1] * (1 + JITTER * spread())
    return now + max(pause, min(asked or pause, LONGEST_PAUSE))


def asked_pause(header: str | None, now: datetime) -> timedelta | None:
    """What a Retry-After header asks for, in seconds or as a date; None when it says nothing that can be read."""
    if header is None:
        return None
    if header.isascii() and header.isdigit():
        return timedelta(seconds=int(header[:9]))
    try:
        moment = parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return None
    return max((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now, timedelta(0))
