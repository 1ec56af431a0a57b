"""``make bench``: run everything, print one table, write ``bench/results.json``.

``python -m bench streams recovery`` measures these parts only and leaves the figures of the others as they stand.
"""

import argparse
import logging
import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import structlog
import uvloop
from rich.console import Console
from rich.table import Table

from bench import backtest, gate, ledger, prices, rebuild, recovery, slow_streams, streams, webhooks
from bench.measured import Measured

RESULTS = Path(__file__).parent / "results.json"

#: figure → (what it is, target)
FIGURES = {
    "ledger_many_accounts_ratio": ("group commit ÷ one transaction per command, 10,000 accounts", "≥ 3"),
    "ledger_hot_account_ratio": ("the same on one hot account", "≥ 15"),
    "gate_throughput_ratio": ("gate ÷ bare aiohttp pass-through, requests per second", "≥ 0.6 (going to 0.8)"),
    "gate_p50_added_ms": ("gate − pass-through, p50", ""),
    "gate_p99_added_ms": ("gate − pass-through, p99", ""),
    "stream_tokens_ratio": ("gate ÷ pass-through, streamed tokens for a second of CPU", ""),
    "stream_tokens_per_cpu_s": ("tokens that the gate streams for a second of CPU", ""),
    "stream_ttfb_added_ms": ("gate − pass-through, p50 of the time to a stream's first event", ""),
    "stream_bytes_per_stream": ("memory of the gate for each of 1,000 open streams, bytes", ""),
    "stream_bytes_added": ("gate − pass-through of the same", ""),
    "recovery_10000_holds_s": ("from kill -9 of a worker with 10,000 open holds to none, seconds", ""),
    "recovery_holds_per_s": ("holds ended per second of that", ""),
    "webhooks_ratio": ("payments credited per second ÷ those of a handler that keeps no books", ""),
    "price_exact_us": ("one exact price, four charges", "≤ 5"),
    "price_bound_us": ("one bound, four charges", "≤ 10"),
    "price_vs_cel_python_ratio": ("the same price in CEL (cel-python) ÷ ours", "≥ 1"),
    "price_vs_cel_rust_ratio": ("the same price in CEL (common-expression-language, Rust) ÷ ours", "≥ 1"),
    "price_vs_starlark_ratio": ("the same price in Starlark (starlark-pyo3, Rust) ÷ ours", "≥ 1"),
    "backtest_usages_per_s": ("stored usages priced again per second and core", "≥ 100,000"),
    "rebuild_events_per_s": ("events per second of a whole rebuild", ""),
}

PARTS: dict[str, Callable[[Path], Awaitable[Measured]]] = {
    "prices": prices.measure,
    "backtest": backtest.measure,
    "ledger": ledger.measure,
    "gate": gate.measure,
    "streams": streams.measure,
    "slow_streams": slow_streams.measure,
    "recovery": recovery.measure,
    "rebuild": rebuild.measure,
    "webhooks": webhooks.measure,
}


async def _measure(directory: Path, parts: list[str]) -> tuple[dict[str, float], dict[str, object]]:
    medians: dict[str, float] = {}
    samples: dict[str, object] = {}
    for part in parts:
        measured = await PARTS[part](directory)
        medians.update(measured.medians)
        samples[part] = measured.samples
    return medians, samples


def main() -> None:
    """Measure in a temporary directory that an unprivileged Postgres can reach."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"only these: {', '.join(PARTS)}")
    parts = parser.parse_args().parts or list(PARTS)
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as name:
        os.chmod(name, 0o755)
        medians, samples = uvloop.run(_measure(Path(name), parts))
    _print(medians, samples)
    _keep(medians, samples)


def _print(medians: dict[str, float], samples: dict[str, object]) -> None:
    table = Table("figure", "what", "median", "target", title="Tollgate")
    for figure, (what, target) in FIGURES.items():
        if figure in medians:
            table.add_row(figure, what, f"{medians[figure]:,.2f}", target)
    console = Console()
    console.print(table)
    for part, raw in samples.items():
        console.print(f"{part}: {raw}", style="dim")


def _keep(medians: dict[str, float], samples: dict[str, object]) -> None:
    kept: dict[str, Any] = msgspec.json.decode(RESULTS.read_bytes()) if RESULTS.exists() else {"samples": {}}
    raw = {**kept.pop("samples"), **samples}
    RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode({**kept, **medians, "samples": raw}), indent=2) + b"\n")


if __name__ == "__main__":
    main()
