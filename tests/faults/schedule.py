"""Which fault happens when and to whom: drawn from the seed before anything runs, then injected."""

import asyncio
import random
import signal
import time
from collections import Counter
from typing import Any

import msgspec

from tests.faults.clients import Load
from tests.faults.installation import Installation
from tests.faults.network import Link

#: Seconds between two faults.
GAP_S = (0.3, 2.5)
#: How long a fault lasts that has an end. The longer ones outlast a lease: the sweep ends holds of a living worker.
LASTS_S = (0.5, 8.0)
#: How often each kind is drawn, relative to the others.
KINDS = {
    "kill_worker": 4,
    "terminate_worker": 2,
    "kill_background": 2,
    "cut_postgres": 4,
    "delay_postgres": 3,
    "stall_postgres": 3,
    "refuse_postgres": 2,
    "cut_everybodys_postgres": 1,
    "stall_everybodys_postgres": 1,
    "restart_postgres": 1,
    "kill_postgres": 1,
    "cut_backend": 4,
    "delay_backend": 3,
    "stall_backend": 3,
    "refuse_backend": 2,
    "wish_of_backend": 2,
    "step_clock": 4,
    "burst": 2,
}
#: Kinds that keep a hold from being ended while they last, or shortly after.
OUTAGES = frozenset(kind for kind in KINDS if "postgres" in kind or kind == "kill_background")
#: What a process needs until it serves again after one of these.
RECOVERS_WITHIN_S = 4.0
CLOCK_STEPS_S = (-7200, -3600, -60, -3, 3, 60, 3600, 7200)
WISHES: tuple[dict[str, Any], ...] = (
    {"status": 503},
    {"status": 500, "every": 2},
    {"close_before_headers": True, "every": 2},
    {"close_after": 4, "every": 2},
    {"health": "down"},
    {"token_latency_ms": 60},
)
LARGEST_BURST = 40


class Fault(msgspec.Struct, frozen=True):
    """One fault of the schedule."""

    at_s: float  # after the load began
    kind: str
    target: int  # number of a worker or backend; the one after the last worker is the background process
    lasts_s: float
    amount: Any = None  # milliseconds, seconds, requests, a wish, or how a stall ends

    def __str__(self) -> str:
        return f"{self.at_s:.1f}s {self.kind} {self.target} for {self.lasts_s:.1f}s {self.amount or ''}".rstrip()


def draw_schedule(seed: int, *, seconds: float, workers: int, backends: int) -> list[Fault]:
    """The faults of a run; all are over when it is."""
    chance = random.Random(f"{seed}/schedule")
    faults = []
    at_s = chance.uniform(*GAP_S)
    while at_s < seconds:
        (kind,) = chance.choices(list(KINDS), weights=list(KINDS.values()))
        targets = backends if "backend" in kind else workers + ("_postgres" in kind)
        lasts_s = min(chance.uniform(*LASTS_S), seconds - at_s)
        faults.append(Fault(at_s, kind, chance.randrange(targets), lasts_s, _amount(chance, kind)))
        at_s += chance.uniform(*GAP_S)
    return faults


def _amount(chance: random.Random, kind: str) -> Any:
    match kind:
        case "delay_postgres":
            return chance.choice((5, 50, 400))
        case "delay_backend":
            return chance.choice((5, 50, 1000))
        case "stall_postgres" | "stall_everybodys_postgres" | "stall_backend":
            return chance.choice(("arrives late", "is lost"))
        case "step_clock":
            return chance.choice(CLOCK_STEPS_S)
        case "wish_of_backend":
            return chance.choice(WISHES)
        case "burst":
            return chance.randrange(10, LARGEST_BURST)
    return None


class Injector:
    """Carries a schedule out, and remembers what was out when."""

    def __init__(self, installation: Installation, load: Load) -> None:
        self.injected: Counter[str] = Counter()
        self.outages: list[tuple[float, float]] = []  # from, until; seconds since 1970
        self._installation = installation
        self._load = load

    async def run(self, schedule: list[Fault]) -> None:
        """Returns when the last fault is over and nothing is left of any."""
        began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for fault in schedule:
                await asyncio.sleep(began + fault.at_s - asyncio.get_running_loop().time())
                group.create_task(self._inject(fault))
        self._installation.heal()
        for backend in self._installation.backends:
            await backend.wish()

    async def _inject(self, fault: Fault) -> None:
        self.injected[fault.kind] += 1
        began = time.time()
        await self._do(fault)
        if fault.kind in OUTAGES:
            self.outages.append((began, time.time() + RECOVERS_WITHIN_S))

    async def _do(self, fault: Fault) -> None:
        installation = self._installation
        match fault.kind:
            case "kill_worker":
                installation.workers[fault.target].process.send(signal.SIGKILL)
            case "terminate_worker":
                installation.workers[fault.target].process.send(signal.SIGTERM)
            case "kill_background":
                installation.background.send(signal.SIGKILL)
            case "restart_postgres" | "kill_postgres":
                await installation.restart_postgres(crash=fault.kind == "kill_postgres")
            case "step_clock":
                installation.workers[fault.target].step_clock(fault.amount)
                await asyncio.sleep(fault.lasts_s)
                installation.workers[fault.target].step_clock(0)
            case "wish_of_backend":
                await installation.backends[fault.target].wish(**fault.amount)
                await asyncio.sleep(fault.lasts_s)
                await installation.backends[fault.target].wish()
            case "burst":
                self._load.burst(fault.amount)
            case _:
                await self._disturb(self._links(fault), fault)

    def _links(self, fault: Fault) -> list[Link]:
        postgres = [worker.postgres for worker in self._installation.workers]
        postgres.append(self._installation.background_postgres)
        if "everybodys" in fault.kind:
            return postgres
        if "backend" in fault.kind:
            return [self._installation.backends[fault.target].link]
        return [postgres[fault.target]]

    async def _disturb(self, links: list[Link], fault: Fault) -> None:
        what = fault.kind.partition("_")[0]
        for link in links:
            match what:
                case "cut":
                    link.cut()
                case "refuse":
                    link.refuse()
                case "stall":
                    link.stall()
                case "delay":
                    link.delay_s = fault.amount / 1000
        if what == "cut":
            return
        await asyncio.sleep(fault.lasts_s)
        for link in links:
            if fault.amount == "is lost":
                link.cut()
            link.heal()
