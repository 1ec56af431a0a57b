"""``python -m tests.faults``: run after run, and one line for each rule that was broken."""

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import structlog

from tests.faults.campaign import Plan, Result, run


def main() -> None:
    """Exits 1 when a rule was broken."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the first run; the next runs count up")
    parser.add_argument("--seconds", type=float, default=60, help="of load and faults in each run")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--clients", type=int, default=24)
    parser.add_argument("--no-idempotency", action="store_true", help="send no request twice with an Idempotency-Key")
    parser.add_argument("--keep", type=Path, help="directory for the logs and journals of runs that broke a rule")
    parser.add_argument("--schedule", action="store_true", help="print every fault of each run")
    options = parser.parse_args()
    # What furnishing the installation logs is no finding.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    broken = 0
    for seed in range(options.seed, options.seed + options.runs):
        plan = Plan(
            seed=seed,
            seconds=options.seconds,
            workers=options.workers,
            clients=options.clients,
            idempotency=not options.no_idempotency,
            keep_in=options.keep,
        )
        result = asyncio.run(_run(plan))
        _report(result, with_schedule=options.schedule)
        broken += len(result.violations)
    sys.exit(1 if broken else 0)


async def _run(plan: Plan) -> Result:
    """SIGTERM ends it as Ctrl-C does: with nothing left behind."""
    task = asyncio.current_task()
    assert task is not None  # asyncio.run made it
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await run(plan)


def _report(result: Result, *, with_schedule: bool) -> None:
    lines = [f"seed {result.seed}: {result.requests} requests ({_counts(result.endings)})"]
    lines.append(f"  purchases: {result.purchases}")
    lines.append(f"  faults: {_counts(result.faults)}")
    if with_schedule:
        lines += [f"    {result.began_at + fault.at_s:.3f} {fault}" for fault in result.schedule]
    lines.append(f"  violations: {len(result.violations)}")
    lines += [f"    seed={result.seed} {violation}" for violation in result.violations]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _counts(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counted.items()))


if __name__ == "__main__":
    main()
