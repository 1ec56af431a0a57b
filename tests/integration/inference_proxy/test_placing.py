"""A hold is priced for the plan that its account is on, also when that changes between the price and the hold."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import cast

import aiohttp
import pytest
import pytest_asyncio

from inference_proxy.backends import BackendConfig, BackendPool
from inference_proxy.holds import Endings
from inference_proxy.models import Model, ModelCatalog
from inference_proxy.operations import CHAT_COMPLETIONS
from inference_proxy.orders import Order
from inference_proxy.placing import MAX_PLANS, Placer
from inference_proxy.prepared import Prepared
from inference_proxy.prices import PriceFeed
from inference_proxy.progress import Progress
from inference_proxy.refusals import translate
from inference_proxy.terms import TermsOfAccounts
from inference_proxy.write_ahead import WriteAheadFile
from ledger import ChangePlan, Committed, Ledger
from ledger.commands import Command
from ledger.errors import PlanOutdated
from ledger.events import HoldPlaced, ProgramAssigned
from pricing.publishing import assign, publish
from tests.conftest import Clock
from tests.unit.ledger.scenes import A, grant, open_account

PROGRAM = 'id = "p"\ncurrency = "USD"\n[[charges]]\nname = "tokens"\nmeter = "output_tokens"\nprice = "0.01"\n'
MODELS = ModelCatalog([Model(id="m", context_length=4000)])
BODY = b'{"model": "m", "max_tokens": 10, "messages": [{"role": "user", "content": "Hi"}]}'
ORDER = Order(operation=CHAT_COMPLETIONS, account_id=A, key_id=None, body=BODY, request_id="req_1", hold_id="hold_1")

Place = Callable[[int], Awaitable[HoldPlaced]]


class Operator:
    """A ledger where the account is put on another plan just before a hold, so many times."""

    def __init__(self, ledger: Ledger, *, changes: int) -> None:
        self.account = ledger.account
        self._ledger = ledger
        self._left = changes

    async def submit(self, command: Command) -> Committed:
        if self._left:
            self._left -= 1
            plan = f"plan-{self._left}"
            await self._ledger.submit(
                ChangePlan(stream_id=A, plan=plan, changed_by="anna", idempotency_key=f"change {self._left}")
            )
        return await self._ledger.submit(command)


@pytest_asyncio.fixture
async def place(ledger: Ledger, clock: Clock, tmp_path: Path) -> AsyncIterator[Place]:
    """Places the hold of one request while the plan of its account changes so many times."""
    await ledger.submit(open_account())
    await ledger.submit(grant(10**12))
    await publish(ledger, PROGRAM, published_by="anna")
    assigned = ProgramAssigned(program="p", version=1, model="m", effective_from=clock(), assigned_by="anna")
    await assign(ledger, assigned, now=clock())
    prices = PriceFeed(ledger)
    await prices.refresh()
    write_ahead = WriteAheadFile.open(tmp_path, 7)
    async with aiohttp.ClientSession() as session:
        backend = BackendConfig(name="gpu-1", url="http://127.0.0.1:1", models=["m"])
        backends = BackendPool([backend], session, monotonic=lambda: 0.0)

        async def place(changes: int) -> HoldPlaced:
            operated = cast(Ledger, Operator(ledger, changes=changes))
            placer = Placer(
                ledger=operated,
                models=MODELS,
                prices=prices,
                terms=TermsOfAccounts(operated),
                backends=backends,
                write_ahead=write_ahead,
                endings=Endings(),
                worker_id=7,
                clock=clock,
            )
            placed = await placer.place(ORDER, prepared(), Progress(lambda: 0.0))
            assert placed.hold.placed is not None
            event = placed.hold.placed.stored.event
            assert isinstance(event, HoldPlaced)
            return event

        yield place
    write_ahead.close()


def prepared() -> Prepared:
    return CHAT_COMPLETIONS.prepare(BODY, MODELS)


@pytest.mark.parametrize("changes", [0, 1, MAX_PLANS - 1])
async def test_a_hold_is_placed_however_often_the_plan_changed_before_it(
    place: Place, ledger: Ledger, changes: int
) -> None:
    event = await place(changes)

    account = await ledger.account(A)
    assert account is not None
    assert (account.plan, account.held) == ("plan-0" if changes else None, event.amount_microcents)


async def test_a_request_whose_plan_never_rests_is_told_to_come_back_and_holds_nothing(
    place: Place, ledger: Ledger
) -> None:
    with pytest.raises(PlanOutdated) as outdated:
        await place(MAX_PLANS)

    refusal = translate(outdated.value)
    account = await ledger.account(A)
    assert refusal is not None
    assert (refusal.status, refusal.code, refusal.headers["x-should-retry"]) == (409, "conflict", "true")
    assert account is not None
    assert account.held == 0
