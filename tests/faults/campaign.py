"""One run: an installation, a load, faults while it lasts, quiet, and the verdict."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec

from tests.acceptance.running_demo import until
from tests.faults.buying import Buyers, Purchase
from tests.faults.clients import Load, Seen
from tests.faults.evidence import Books, cases_of, read_books, read_journals, read_topups
from tests.faults.installation import SILENCE_TIMEOUT_S, Installation, installed
from tests.faults.schedule import Fault, Injector, draw_schedule
from tests.faults.verdict import (
    OUTLIVES_S,
    Violation,
    ending_of,
    judge_answers,
    judge_forwarding,
    judge_keys,
    judge_lives,
    judge_request,
    judge_topups,
)

#: The last hold may wait for a silent backend, then for its settlement, then for the sweep.
QUIET_WITHIN_S = SILENCE_TIMEOUT_S + 30.0 + OUTLIVES_S

_ACCOUNTS = "SELECT account_id, credited, spent, held FROM account_states WHERE account_id <> 'prices'"
_OPEN = "SELECT hold_id, account_id, request_id, worker_id, expires_at FROM open_holds"
_NOT_BOOKED = "SELECT id, event_type, outcome FROM payment_notifications WHERE status NOT IN ('processed', 'ignored')"
_BUDGETS = "SELECT key_id, month_spent, monthly_budget FROM key_states WHERE monthly_budget IS NOT NULL"
_TRIAL = "SELECT sum(debit_microcents)::int8 AS debit, sum(credit_microcents)::int8 AS credit FROM trial_balance"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is made of."""

    seed: int
    seconds: float  # of load and faults
    workers: int = 3
    clients: int = 24
    buyers: int = 3  # who top up
    idempotency: bool = True  # some requests carry an Idempotency-Key and are sent twice
    keep_in: Path | None = None  # where logs and journals go when a rule was broken


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    seed: int
    requests: int
    purchases: int
    endings: Counter[str]
    faults: Counter[str]
    schedule: list[Fault]
    began_at: float  # seconds since 1970
    violations: list[Violation]


async def run(plan: Plan) -> Result:
    """Everything once. Nothing is left running afterwards."""
    async with installed(workers=plan.workers) as installation:
        load = Load(
            installation.url, installation.payers, seed=plan.seed, clients=plan.clients, idempotency=plan.idempotency
        )
        rich = [payer for payer in installation.payers if payer.account == "rich"]
        buyers = Buyers(installation.url, installation.stripe_url, rich, seed=plan.seed, buyers=plan.buyers)
        try:
            return await _run(plan, installation, load, buyers)
        finally:
            await load.close()
            await buyers.close()


async def _run(plan: Plan, installation: Installation, load: Load, buyers: Buyers) -> Result:
    schedule = draw_schedule(plan.seed, seconds=plan.seconds, workers=plan.workers, backends=len(installation.backends))
    injector = Injector(installation, load)
    began_at = time.time()
    await asyncio.gather(injector.run(schedule), asyncio.sleep(plan.seconds))
    await asyncio.gather(load.stop(), buyers.stop())
    found = [each async for each in _judge(installation, load.seen, buyers.purchases, injector.outages)]
    if found and plan.keep_in is not None:
        installation.keep_logs(plan.keep_in / f"seed-{plan.seed}")
    return Result(
        seed=plan.seed,
        requests=len(load.seen),
        purchases=len(buyers.purchases),
        endings=Counter(str(ending_of(each)) for each in load.seen),
        faults=injector.injected,
        schedule=schedule,
        began_at=began_at,
        violations=found,
    )


async def _judge(
    installation: Installation, seen: list[Seen], purchases: list[Purchase], outages: list[tuple[float, float]]
) -> AsyncIterator[Violation]:
    try:
        await until(lambda: _is_quiet(installation), within_s=QUIET_WITHIN_S)
    except AssertionError:
        for hold in await installation.fetch(_OPEN):
            yield Violation("no hold is left", str(dict(hold)))
        for told in await installation.fetch(_NOT_BOOKED):
            yield Violation("every notification is booked", str(dict(told)))
        for file in installation.write_ahead_files:
            yield Violation("nothing is left to recover", f"{file.name}, with {len(installation.workers)} workers")
    books, attempts = await read_books(installation), read_journals(installation)
    cases = cases_of(installation, books, seen, attempts)
    for violation in (
        *(each for case in cases for each in judge_request(case)),
        *judge_lives(cases, outages),
        *judge_forwarding(books, attempts),
        *judge_answers(books, seen),
        *judge_keys(cases),
        *judge_topups(purchases, await read_topups(installation)),
    ):
        yield violation
    async for violation in _judge_books(installation, books):
        yield violation


async def _judge_books(installation: Installation, books: Books) -> AsyncIterator[Violation]:
    for account in await installation.fetch(_ACCOUNTS):
        for violation in _judge_account(books, **dict(account)):
            yield violation
    for key in await installation.fetch(_BUDGETS):
        if key["month_spent"] > key["monthly_budget"] + books.beyond_holds[key["key_id"]]:
            yield Violation("no key is beyond its budget but by an overrun", str(dict(key)))
    (trial,) = await installation.fetch(_TRIAL)
    if trial["debit"] != trial["credit"]:
        yield Violation("the trial balance is zero", f"{trial['debit']} debit, {trial['credit']} credit")
    checked = await installation.check()
    if checked.status:
        yield Violation("the projections follow from the events", f"{checked.out} {checked.err}")


async def _is_quiet(installation: Installation) -> bool:
    idle = await asyncio.gather(*(backend.is_idle() for backend in installation.backends))
    is_recovered = len(installation.write_ahead_files) == len(installation.workers)
    is_booked = not await installation.fetch(_NOT_BOOKED)
    return all(idle) and is_recovered and is_booked and not await installation.fetch(_OPEN)


def _judge_account(books: Books, *, account_id: str, credited: int, spent: int, held: int) -> Iterator[Violation]:
    """credited = available + held + spent, with each of them counted from the events."""
    expected = (books.credited[account_id], books.spent[account_id], 0)
    if (credited, spent, held) != expected:
        yield Violation("no money appears or vanishes", f"{account_id}: {(credited, spent, held)}, not {expected}")
    if books.lowest_available.get(account_id, 0) < 0:
        yield Violation("nobody owes but by an overrun", f"{account_id}: {books.lowest_available[account_id]}")
    if credited - spent < -books.indebted[account_id]:
        yield Violation("nobody owes more than the overruns", f"{account_id}: {credited - spent}")
