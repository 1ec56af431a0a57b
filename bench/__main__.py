"""``make bench``: run everything, print one table, write ``bench/results.json``."""

import logging
import os
import tempfile
from pathlib import Path

import msgspec
import structlog
import uvloop
from rich.console import Console
from rich.table import Table

from bench import backtest, gate, ledger, prices, rebuild

RESULTS = Path(__file__).parent / "results.json"

#: figure → (what it is, target)
FIGURES = {
    "ledger_many_accounts_ratio": ("group commit ÷ one transaction per command, 10,000 accounts", "≥ 3"),
    "ledger_hot_account_ratio": ("the same on one hot account", "≥ 15"),
    "gate_throughput_ratio": ("gate ÷ bare aiohttp pass-through, requests per second", "≥ 0.6 (going to 0.8)"),
    "gate_p50_added_ms": ("gate − pass-through, p50", ""),
    "gate_p99_added_ms": ("gate − pass-through, p99", ""),
    "price_exact_us": ("one exact price, four charges", "≤ 5"),
    "price_bound_us": ("one bound, four charges", "≤ 10"),
    "price_vs_cel_python_ratio": ("the same price in CEL (cel-python) ÷ ours", "≥ 1"),
    "price_vs_cel_rust_ratio": ("the same price in CEL (common-expression-language, Rust) ÷ ours", "≥ 1"),
    "price_vs_starlark_ratio": ("the same price in Starlark (starlark-pyo3, Rust) ÷ ours", "≥ 1"),
    "backtest_usages_per_s": ("stored usages priced again per second and core", "≥ 100,000"),
    "rebuild_events_per_s": ("events per second of a whole rebuild", ""),
}


async def _measure(directory: Path) -> tuple[dict[str, float], dict[str, object]]:
    priced = prices.measure()
    backtested = backtest.measure()
    booked = await ledger.measure(directory)
    gated = await gate.measure(directory)
    rebuilt = await rebuild.measure(directory)
    medians = {
        "ledger_many_accounts_ratio": booked.many_accounts_ratio,
        "ledger_hot_account_ratio": booked.hot_account_ratio,
        "gate_throughput_ratio": gated.throughput_ratio,
        "gate_p50_added_ms": gated.p50_added_ms,
        "gate_p99_added_ms": gated.p99_added_ms,
        "price_exact_us": priced.exact_us,
        "price_bound_us": priced.bound_us,
        "price_vs_cel_python_ratio": priced.cel_python_ratio,
        "price_vs_cel_rust_ratio": priced.cel_rust_ratio,
        "price_vs_starlark_ratio": priced.starlark_ratio,
        "backtest_usages_per_s": backtested.usages_per_s,
        "rebuild_events_per_s": rebuilt.events_per_s,
    }
    samples = {
        "ledger": booked.samples,
        "gate": gated.samples,
        "prices": priced.samples,
        "backtest": backtested.samples,
        "rebuild": rebuilt.events,
    }
    return medians, samples


def main() -> None:
    """Measure in a temporary directory that an unprivileged Postgres can reach."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as name:
        os.chmod(name, 0o755)
        medians, samples = uvloop.run(_measure(Path(name)))
    table = Table("figure", "what", "median", "target", title="Tollgate")
    for figure, (what, target) in FIGURES.items():
        table.add_row(figure, what, f"{medians[figure]:,.2f}", target)
    console = Console()
    console.print(table)
    for part, raw in samples.items():
        console.print(f"{part}: {raw}", style="dim")
    RESULTS.write_bytes(msgspec.json.format(msgspec.json.encode({**medians, "samples": samples}), indent=2) + b"\n")


if __name__ == "__main__":
    main()
