"""(c) Microseconds for one exact price and for one bound, of a program with four charges; and for the same price in
other languages made to be embedded.

They get the sum of the four products in whole microcents, which for these prices is exact, and nothing else: no check
of the usage, no rounding, no receipt. What they can do ahead (parse, compile, wrap the numbers) is done ahead.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cel
import celpy
import starlark

from bench.measured import Measured
from pricing import Span, parse_program

PROGRAM = """
id = "bench"
currency = "USD"

[[charges]]
name = "input"
meter = "input_tokens - cached_input_tokens"
price = 0.15
per = 1_000_000

[[charges]]
name = "cached input"
meter = "cached_input_tokens"
price = 0.03
per = 1_000_000

[[charges]]
name = "output"
meter = "output_tokens - reasoning_tokens"
price = 0.60
per = 1_000_000

[[charges]]
name = "reasoning"
meter = "reasoning_tokens"
price = 0.90
per = 1_000_000
"""
USAGE = {"input_tokens": 1234, "cached_input_tokens": 512, "output_tokens": 777, "reasoning_tokens": 300}
BOX = {
    "input_tokens": Span(0, 8192),
    "cached_input_tokens": Span(0, 8192),
    "output_tokens": Span(0, 2048),
    "reasoning_tokens": Span(0, 2048),
}
#: The same price in microcents, as an expression of all three other languages.
FORMULA = (
    "(input_tokens - cached_input_tokens) * 15 + cached_input_tokens * 3"
    " + (output_tokens - reasoning_tokens) * 60 + reasoning_tokens * 90"
)
ROUNDS = 9
CALLS = 20_000
#: An interpreter written in Python takes a thousand times as long.
CALLS_OF_CEL_PYTHON = 200


async def measure(directory: Path) -> Measured:
    """In turns, without a file in ``directory``. Samples are microseconds."""
    program = parse_program(PROGRAM)
    calls: dict[str, tuple[Callable[[], object], int]] = {
        "exact_us": (lambda: program.price(USAGE), CALLS),
        "bound_us": (lambda: program.bound(BOX), CALLS),
        "cel_python_us": (_in_cel_python(), CALLS_OF_CEL_PYTHON),
        "cel_rust_us": (_in_cel_rust(), CALLS),
        "starlark_us": (_in_starlark(), CALLS),
    }
    expected = program.price(USAGE).total_microcents
    for name in ("cel_python_us", "cel_rust_us", "starlark_us"):
        if (found := calls[name][0]()) != expected:
            raise ValueError(f"{name}: {found} is not the price {expected}")
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, (call, times) in calls.items():
            samples[name].append(_microseconds(call, times))
    medians = {name: statistics.median(each) for name, each in samples.items()}
    figures = {
        "price_exact_us": medians["exact_us"],
        "price_bound_us": medians["bound_us"],
        "price_vs_cel_python_ratio": medians["cel_python_us"] / medians["exact_us"],
        "price_vs_cel_rust_ratio": medians["cel_rust_us"] / medians["exact_us"],
        "price_vs_starlark_ratio": medians["starlark_us"] / medians["exact_us"],
    }
    return Measured(figures, samples)


def _in_cel_python() -> Callable[[], object]:
    environment = celpy.Environment()
    compiled = environment.program(environment.compile(FORMULA))
    usage = {key: celpy.celtypes.IntType(value) for key, value in USAGE.items()}
    return lambda: compiled.evaluate(usage)


def _in_cel_rust() -> Callable[[], object]:
    compiled = cel.compile(FORMULA)
    return lambda: compiled.execute(USAGE)


def _in_starlark() -> Callable[[], object]:
    module = starlark.Module()
    function = f"def price({', '.join(USAGE)}):\n    return {FORMULA}\n"
    starlark.eval(module, starlark.parse("price.star", function), starlark.Globals.standard())
    frozen = module.freeze()
    counts = tuple(USAGE.values())
    return lambda: frozen.call("price", *counts)


def _microseconds(call: Callable[[], object], times: int) -> float:
    began = time.process_time()
    for _ in range(times):
        call()
    return (time.process_time() - began) / times * 1e6
