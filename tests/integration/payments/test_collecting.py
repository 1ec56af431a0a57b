"""An automatic top-up on its way: raced for, cut off anywhere, overtaken by what Stripe tells – and paid once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import msgspec
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger import Ledger
from payments import AutomaticTopups, open_stripe
from tests.conftest import APP_SETTINGS, Clock, Connect

from .conftest import CARD, Payer, Till, trial_balance
from .savers import AMOUNT, Saver

WORKERS = 20
CREATE = "/v1/payment_intents"


@pytest_asyncio.fixture
async def saver(till: Till, payer: Payer) -> Saver:
    """With a card that pays, and automatic top-ups."""
    saver = Saver(till, payer)
    await saver.save()
    await saver.turn_on()
    return saver


@asynccontextmanager
async def workers(
    till: Till, database_url: str, connect: Connect, clock: Clock, count: int
) -> AsyncIterator[list[AutomaticTopups]]:
    """As many processes have them: each with a ledger, a pool and a client of its own."""
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(count):
            pool = await stack.enter_async_context(
                asyncpg.create_pool(database_url, min_size=1, max_size=2, server_settings=APP_SETTINGS)
            )
            ledger = await Ledger.open(pool, connect, clock)
            stack.push_async_callback(ledger.close)
            config = msgspec.structs.replace(till.config, timeout_s=30)
            road = await stack.enter_async_context(open_stripe(config, ledger, clock))
            made.append(road.automatic)
        yield made


@pytest.mark.parametrize("lost", ["", CREATE, "/confirm"])
async def test_twenty_workers_at_once_make_one_payment(
    till: Till, saver: Saver, database_url: str, connect: Connect, clock: Clock, lost: str
) -> None:
    async with workers(till, database_url, connect, clock, WORKERS) as racing:
        for round_ in (1, 2):
            till.stripe_fails(lose_answer=bool(lost), path=lost, times=5)
            await asyncio.gather(*[worker.run() for worker in racing])
            clock.advance(hours=2)
            await asyncio.gather(*[worker.run() for worker in racing])

            assert len(saver.payments()) == round_
            assert await till.credited(saver.payer) == AMOUNT
            await till.spend(saver.payer, AMOUNT)

    await saver.tell_all()
    assert await saver.statuses() == ["credited"] * 2
    assert (await till.events_of(saver.payer)).count("topup.requested") == 2


async def test_workers_that_race_with_what_stripe_tells_credit_once(
    till: Till, saver: Saver, database_url: str, connect: Connect, clock: Clock
) -> None:
    async with workers(till, database_url, connect, clock, 5) as racing:
        told: list[asyncio.Task[Any]] = []

        def tell(path: str) -> None:
            told.extend(
                asyncio.ensure_future(till.tell(event)) for event in till.events("payment_intent.succeeded")[-1:]
            )

        till.stripe.after_request = tell
        await asyncio.gather(*[worker.run() for worker in racing])
        await asyncio.gather(*told)

    assert (await till.events_of(saver.payer)).count("topup.credited") == 1
    assert len(saver.payments()) == 1


@pytest.mark.parametrize("path", [CREATE, "/confirm"])
@pytest.mark.parametrize("forgets", [False, True], ids=["", "stripe forgets its keys"])
async def test_an_answer_that_was_lost_is_found_out_and_nothing_is_paid_twice(
    till: Till, saver: Saver, path: str, forgets: bool
) -> None:
    till.stripe_fails(lose_answer=True, path=path)
    await saver.run()
    assert await saver.statuses() == [{CREATE: "requested", "/confirm": "pending"}[path]]
    till.stripe_fails()
    if forgets:
        till.stripe.forget_keys()

    for _ in range(2):
        await saver.run()

    assert await saver.statuses() == ["credited"]
    assert len(saver.payments("succeeded")) == 1
    assert {each["status"] for each in saver.payments()} <= {"succeeded", "requires_confirmation"}


@pytest.mark.parametrize("how", [{"status": 500}, {"status": 429}, {"status": 401}, {"hang_s": 30.0}], ids=str)
@pytest.mark.parametrize("path", [CREATE, "/confirm"])
async def test_a_stripe_that_is_away_or_does_not_let_us_in_delays_and_loses_nothing(
    till: Till, saver: Saver, path: str, how: dict[str, Any]
) -> None:
    till.stripe_fails(path=path, **how)
    await saver.run()
    assert await saver.status() == "in_flight"
    till.stripe_fails()

    await saver.run()

    assert await saver.statuses() == ["credited"]
    assert len(saver.payments()) == 1


async def test_what_stripe_tells_before_it_answers_is_booked_once(till: Till, saver: Saver) -> None:
    taken = asyncio.Event()
    till.stripe.after_request = lambda path: taken.set() if path.endswith("/confirm") else None
    till.stripe_fails(stall_s=30, path="/confirm", times=1)
    running = asyncio.create_task(saver.run())
    await taken.wait()
    await till.tell(till.events("payment_intent.succeeded")[0])
    assert await till.credited(saver.payer) == AMOUNT
    await running

    assert await till.events_of(saver.payer) == ["topup.requested", "topup.pending", "topup.credited"]


async def test_a_payment_that_takes_days_is_in_flight_and_no_other_begins(till: Till, payer: Payer) -> None:
    saver = Saver(till, payer)
    till.stripe.cards.wallets.change_outcome(await saver.save(), "processing")
    await saver.turn_on()
    for _ in range(3):
        await saver.run()
    assert await saver.statuses() == ["pending"]

    (payment,) = saver.payments()
    till.stripe.cards.wallets.settle_payment(payment, succeeds=True)
    await till.tell(till.events("payment_intent.succeeded")[0])

    assert await saver.statuses() == ["credited"]


async def test_a_payment_that_fails_after_days_is_a_decline(till: Till, payer: Payer) -> None:
    saver = Saver(till, payer)
    till.stripe.cards.wallets.change_outcome(await saver.save(), "processing")
    await saver.turn_on()
    await saver.run()
    (payment,) = saver.payments()
    till.stripe.cards.wallets.settle_payment(payment, succeeds=False)

    for event in till.events("payment_intent.payment_failed") * 2:
        await till.tell(event)

    assert await saver.statuses() == ["failed"]
    assert await saver.status() == "backing_off"
    await saver.tell_all()
    assert {status for status, _ in await till.outcomes()} == {"processed", "ignored"}


async def test_a_payment_in_flight_is_asked_for_less_and_less_often(till: Till, payer: Payer) -> None:
    saver = Saver(till, payer)
    till.stripe.cards.wallets.change_outcome(await saver.save(), "processing")
    await saver.turn_on()
    await saver.run()

    looks = []
    for _ in range(4):
        before = len(till.stripe.requests)
        for _ in range(60):
            till.clock.advance(minutes=1)
            await saver.run()
        looks.append(len(till.stripe.requests) - before)

    assert looks[0] < 20
    assert all(1 <= look <= 3 for look in looks[1:])


def turned_off(saver: Saver) -> Any:
    return saver.turn_off()


def card_deleted(saver: Saver) -> Any:
    return saver.till.call("DELETE", CARD, saver.payer.secret)


async def card_replaced(saver: Saver) -> Any:
    """By a process that was killed before Stripe was told to forget the one before."""
    before = saver.till.books.all_of("payment_method")[0]
    customer = before["customer"]
    await saver.save()
    before["customer"] = customer


CHANGES = pytest.mark.parametrize("change", [turned_off, card_deleted, card_replaced])


@CHANGES
@pytest.mark.parametrize("path", [CREATE, "/confirm"])
async def test_what_is_changed_before_the_money_is_taken_holds(
    till: Till, saver: Saver, path: str, change: Callable[[Saver], Any]
) -> None:
    before = saver.payments()
    till.stripe_fails(status=500, path=path)
    await saver.run()
    (first,) = await till.history(saver.payer)
    till.stripe_fails()

    await change(saver)
    await saver.run()
    await saver.run()

    assert before == []
    if change is card_replaced:
        assert [each["payment_method"] for each in saver.payments("succeeded")] == [
            till.books.all_of("payment_method")[0]["id"]
        ]
        assert await till.credited(saver.payer) == AMOUNT
    else:
        assert saver.payments("succeeded") == []
        assert (await till.history(saver.payer))[0]["id"] == first["id"]
        assert await saver.statuses() == ["failed"]


@CHANGES
async def test_money_that_was_taken_before_a_change_is_credited(
    till: Till, saver: Saver, change: Callable[[Saver], Any]
) -> None:
    till.stripe_fails(lose_answer=True, path="/confirm")
    await saver.run()
    till.stripe_fails()

    await change(saver)
    await saver.run()

    assert await saver.statuses() == ["credited"]
    assert await till.credited(saver.payer) == AMOUNT


async def test_a_top_up_for_which_nothing_could_be_made_for_a_day_is_given_up(till: Till, saver: Saver) -> None:
    till.stripe_fails(status=500, path=CREATE)
    await saver.run()
    till.clock.now += timedelta(hours=24)
    till.stripe_fails()

    await saver.run()

    assert await saver.statuses() == ["failed"]
    assert saver.payments() == []


async def test_what_stripe_will_not_make_at_all_fails_and_backs_off(till: Till, saver: Saver) -> None:
    till.stripe_fails(status=400, path=CREATE, message="no\0")

    for _ in range(2):
        await saver.run()

    assert await saver.statuses() == ["failed"]
    assert await saver.status() == "backing_off"


async def test_a_payer_who_mistypes_a_card_on_a_page_may_try_again(till: Till, payer: Payer) -> None:
    session = await till.ordered(payer)
    payment = till.pay(session, later=True)
    payment["status"] = "requires_payment_method"
    till.books.tell("payment_intent.payment_failed", payment)

    await till.tell(till.events("payment_intent.payment_failed")[0])

    assert await till.status_of(payer) == "pending"
    assert [status for status, _ in await till.outcomes()] == ["ignored"]


async def test_a_payment_of_another_amount_is_a_break_and_stays_in_flight(till: Till, saver: Saver) -> None:
    till.stripe_fails(status=500, path="/confirm")
    await saver.run()
    (payment,) = saver.payments()
    payment["amount"] = 999
    till.stripe_fails()

    for _ in range(2):
        await saver.run()
    await till.tell(till.events("payment_intent.succeeded")[0])

    assert await till.credited(saver.payer) == 0
    assert await saver.status() == "in_flight"
    assert {status for status, _ in await till.outcomes()} >= {"broken"}


steps = st.lists(
    st.sampled_from(
        [
            *("run", "run", "run", "spend", "tell", "heal", "hours"),
            *("away", "lose", "lose create", "forget", "declined", "processing", "pays", "settle", "off", "on", "card"),
        ]
    ),
    min_size=5,
    max_size=25,
)


class Life:
    """What a customer, a bank, a network and a clock may do to automatic top-ups."""

    def __init__(self, saver: Saver) -> None:
        self.saver = saver
        self.till = saver.till

    async def step(self, name: str, choice: int) -> None:
        saver, till, wallets = self.saver, self.till, self.till.stripe.cards.wallets
        card = next(each for each in till.books.all_of("payment_method") if each["card"])
        match name:
            case "run":
                await saver.run()
            case "spend":
                if rest := int(await till.credited(saver.payer)):
                    await till.spend(saver.payer, rest)
            case "tell":
                await till.tell(till.events()[-1 - choice % len(till.events())])
            case "heal":
                till.stripe_fails()
            case "hours":
                till.clock.advance(hours=choice % 30)
            case "away":
                till.stripe_fails(status=500)
            case "lose":
                till.stripe_fails(lose_answer=True)
            case "lose create":
                till.stripe_fails(lose_answer=True, path=CREATE)
            case "forget":
                till.stripe.forget_keys()
            case "declined" | "processing" | "pays":
                outcome = {"declined": "generic_decline", "processing": "processing", "pays": None}[name]
                wallets.change_outcome(card, outcome)
            case "settle":
                for payment in saver.payments("processing"):
                    wallets.settle_payment(payment, succeeds=bool(choice % 2))
            case "off":
                await saver.turn_off()
            case "on":
                await saver.turn_on()
            case "card":
                await self._another_card()

    async def _another_card(self) -> None:
        self.till.stripe_fails()
        await self.saver.save()

    async def end(self) -> None:
        """Everything is well again, and everything is told."""
        self.till.stripe_fails()
        await self.step("settle", 1)
        await self.saver.turn_off()
        for _ in range(3):
            self.till.clock.advance(hours=2)
            await self.saver.run()
        await self.saver.tell_all()


@settings(max_examples=20)
@given(names=steps, choice=st.integers(0, 10**6))
async def test_whatever_happens_each_payment_is_one_top_up_and_never_two_are_on_their_way(
    till: Till, pool: asyncpg.Pool, names: list[str], choice: int
) -> None:
    till.stripe_fails()
    saver = Saver(till, await till.payer())
    await saver.save()
    await saver.turn_on(cap=5 * AMOUNT)
    life = Life(saver)

    for name in names:
        await life.step(name, choice)
        topups = await till.ledger.topups(saver.payer.account_id)
        assert [topup.status in ("requested", "pending") for topup in topups].count(True) <= 1
        assert len(saver.payments("processing")) <= 1
    await life.end()

    paid = saver.payments("succeeded")
    credited = [line for line in await till.history(saver.payer) if line["status"] == "credited"]
    assert sorted(line["reference_id"] for line in credited) == sorted(each["id"] for each in paid)
    assert {each["metadata"]["tollgate_topup"] for each in paid} == {line["id"] for line in credited}
    assert set(await saver.statuses()) <= {"credited", "failed"}
    assert len(credited) <= 5 * 2  # of two months at most
    assert await trial_balance(pool) == 0
