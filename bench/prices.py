"""(c) Microseconds for one exact price and for one bound, of a program with four charges."""

import statistics
import time
from collections.abc import Callable

import msgspec

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
ROUNDS = 9
CALLS = 20_000


class PriceResult(msgspec.Struct):
    exact_us: float
    bound_us: float
    samples: dict[str, list[float]]


def measure() -> PriceResult:
    """Medians over the rounds, in turns."""
    program = parse_program(PROGRAM)
    samples: dict[str, list[float]] = {"exact_us": [], "bound_us": []}
    for _ in range(ROUNDS):
        samples["exact_us"].append(_microseconds(lambda: program.price(USAGE)))
        samples["bound_us"].append(_microseconds(lambda: program.bound(BOX)))
    return PriceResult(
        exact_us=statistics.median(samples["exact_us"]),
        bound_us=statistics.median(samples["bound_us"]),
        samples=samples,
    )


def _microseconds(call: Callable[[], object]) -> float:
    began = time.process_time()
    for _ in range(CALLS):
        call()
    return (time.process_time() - began) / CALLS * 1e6
