"""(e) Stored usages priced again per second on one core, by a program with four charges, without reading them."""

import random
import statistics
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.measured import Measured
from bench.prices import PROGRAM
from ledger import Microcents, PriceRef
from ledger.charges import StoredCharge
from ledger.events import HoldSettled
from pricing import PriceBook, PricedProgram, parse_program
from pricing.backtest import Backtest
from pricing.repricing import Repricing

USAGES = 50_000
ACCOUNTS = 1_000
ROUNDS = 5


async def measure(directory: Path) -> Measured:
    """Without a file in ``directory``. Samples are usages for a second of CPU time."""
    program = parse_program(PROGRAM)
    price = PriceRef(program=program.id, version=1, digest=program.digest)
    charges = _charges(price)
    samples = []
    for _ in range(ROUNDS):
        backtest = Backtest(Repricing(PricedProgram(program, price), PriceBook()))
        began = time.process_time()
        backtest.add(charges)
        samples.append(USAGES / (time.process_time() - began))
    return Measured({"backtest_usages_per_s": statistics.median(samples)}, samples)


def _charges(price: PriceRef) -> list[StoredCharge]:
    chosen = random.Random(7)
    start = datetime(2026, 11, 1, tzinfo=UTC)
    return [_charge(price, number, chosen, start + timedelta(days=30) * number / USAGES) for number in range(USAGES)]


def _charge(price: PriceRef, number: int, chosen: random.Random, at: datetime) -> StoredCharge:
    prompt, answer = chosen.randint(1, 30_000), chosen.randint(1, 4_000)
    usage = {
        "input_tokens": prompt,
        "cached_input_tokens": chosen.randint(0, prompt),
        "output_tokens": answer,
        "reasoning_tokens": chosen.randint(0, answer),
    }
    amount = Microcents(1_000)
    settled = HoldSettled(
        hold_id=f"hold_{number}",
        held_microcents=amount,
        operation="chat.completions",
        model=f"m-{number % 5}",
        placed_at=at,
        amount_microcents=amount,
        released_microcents=Microcents(0),
        overrun_microcents=Microcents(0),
        debt_microcents=Microcents(0),
        price=price,
        usage=usage,
    )
    return StoredCharge(
        position=number + 1,
        account_id=f"acct_{chosen.randrange(ACCOUNTS)}",
        currency="USD",
        available_microcents=Microcents(0),
        at=at,
        event=settled,
    )
