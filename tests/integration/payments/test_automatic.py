"""Automatic top-ups: asked for when the books say so, and not when they do not."""

import itertools
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
import pytest_asyncio
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from payments.stripe.automatic import PAUSES

from .conftest import AUTOMATIC, Payer, Till, trial_balance
from .savers import AMOUNT, Saver

INSUFFICIENT_FUNDS = "4000000000009995"
NEEDS_ITS_OWNER = "4000002760003184"


@pytest_asyncio.fixture
async def saver(till: Till, payer: Payer) -> Saver:
    """With a card that pays, and automatic top-ups."""
    saver = Saver(till, payer)
    await saver.save()
    assert (await saver.turn_on()).status == 200
    return saver


def counted(result: str) -> float:
    return REGISTRY.get_sample_value("tollgate_automatic_topups_total", {"result": result}) or float(0)


async def test_an_account_below_its_threshold_is_topped_up_once(till: Till, saver: Saver, pool: asyncpg.Pool) -> None:
    before = counted("requested")

    for _ in range(3):
        await saver.run()
    await saver.tell_all()

    (payment,) = saver.payments()
    assert (payment["amount"], payment["currency"], payment["status"]) == (1000, "usd", "succeeded")
    assert await till.credited(saver.payer) == AMOUNT
    assert await till.events_of(saver.payer) == ["topup.requested", "topup.pending", "topup.credited"]
    (line,) = await till.history(saver.payer)
    assert (line["source"], line["reference_id"]) == ("stripe", payment["id"])
    assert await trial_balance(pool) == 0
    assert counted("requested") == before + 1


async def test_an_account_at_its_threshold_is_left_alone(till: Till, saver: Saver) -> None:
    await saver.turn_on(threshold=AMOUNT)
    for _ in range(2):
        await saver.run()
    assert await saver.statuses() == ["credited"]

    await till.spend(saver.payer, 1)
    await saver.run()

    assert await saver.statuses() == ["credited", "credited"]


async def test_each_time_the_money_is_spent_it_is_topped_up_again(till: Till, saver: Saver) -> None:
    for _ in range(3):
        await saver.run_and_spend()

    assert await saver.statuses() == ["credited"] * 3
    assert len(saver.payments("succeeded")) == 3


async def test_a_declined_card_is_left_in_peace_for_a_while_and_then_works_again(till: Till, payer: Payer) -> None:
    saver = Saver(till, payer)
    card = await saver.save(INSUFFICIENT_FUNDS)
    await saver.turn_on()
    for _ in range(3):
        await saver.run()

    shown = await saver.shown()
    assert (shown["status"], shown["declines"]) == ("backing_off", 1)
    assert await saver.statuses() == ["failed"]
    assert [each["status"] for each in saver.payments()] == ["canceled"]
    (failed,) = [each for each in await till.ledger.stream(payer.account_id) if "failed" in str(each.event).lower()]
    assert "insufficient_funds" in str(failed.event)

    till.stripe.cards.wallets.change_outcome(card, None)
    till.clock.now = datetime.fromisoformat(shown["next_try_at"])
    await saver.run()

    shown = await saver.shown()
    assert (shown["status"], shown["declines"], shown["paid_this_month_cents"]) == ("ready", 0, AMOUNT)
    assert await till.credited(payer) == AMOUNT


async def test_each_decline_in_a_row_makes_the_pause_longer_until_there_is_no_end_to_it(
    till: Till, payer: Payer
) -> None:
    saver = Saver(till, payer)
    await saver.save(INSUFFICIENT_FUNDS)
    await saver.turn_on()
    asked_at = []
    with capture_logs() as logs:
        for _ in range(24 * 4):
            asked = len(await saver.statuses())
            await saver.run()
            if len(await saver.statuses()) > asked:
                asked_at.append(till.clock.now)
            till.clock.now += timedelta(minutes=30)

    pauses = [after - before for before, after in itertools.pairwise(asked_at)]
    assert len(pauses) == len(PAUSES)
    for pause, shortest in zip(pauses, PAUSES, strict=True):
        assert shortest <= pause < shortest + timedelta(minutes=31)
    assert await saver.status() == "paused"
    assert [log["event"] for log in logs].count("automatic_topup.paused") == 1


@pytest.mark.parametrize("change", ["card", "setting"])
async def test_a_pause_ends_with_another_card_or_setting(till: Till, payer: Payer, change: str) -> None:
    saver = Saver(till, payer)
    card = await saver.save(INSUFFICIENT_FUNDS)
    await saver.turn_on()
    for _ in range(4):
        await saver.run()
        till.clock.now += max(PAUSES)
    assert await saver.status() == "paused"

    if change == "card":
        await saver.save()
    else:
        till.stripe.cards.wallets.change_outcome(card, None)
        await saver.turn_on()
    await saver.run()

    assert await till.credited(payer) == AMOUNT


async def test_a_card_whose_owner_has_to_be_there_is_declined_and_cannot_pay_later(till: Till, payer: Payer) -> None:
    saver = Saver(till, payer)
    card = await saver.save(NEEDS_ITS_OWNER)
    await saver.turn_on()
    await saver.run()
    till.stripe.cards.wallets.change_outcome(card, "requires_action")
    till.clock.now += PAUSES[0]
    await saver.run()

    assert await saver.statuses() == ["failed", "failed"]
    assert [each["status"] for each in saver.payments()] == ["canceled", "canceled"]


async def test_a_month_never_costs_more_than_its_cap_and_the_next_one_begins_anew(till: Till, saver: Saver) -> None:
    await saver.turn_on(cap=2500)
    for _ in range(4):
        await saver.run_and_spend()

    shown = await saver.shown()
    assert (shown["status"], shown["paid_this_month_cents"]) == ("cap_reached", 2000)
    assert shown["next_try_at"] == "2026-12-01T00:00:00Z"

    till.clock.now = datetime(2026, 11, 30, 23, 59, 50, tzinfo=UTC)
    await saver.run()
    assert len(saver.payments()) == 2
    await saver.run()
    assert len(saver.payments()) == 3
    assert (await saver.shown())["paid_this_month_cents"] == AMOUNT


async def test_without_a_card_there_is_no_automatic_top_up(till: Till, payer: Payer) -> None:
    refused = await Saver(till, payer).turn_on()

    assert (refused.status, refused.code) == (409, "conflict")
    assert (await till.call("GET", AUTOMATIC, payer.secret)).code == "not_found"


async def test_a_card_that_was_deleted_pays_no_more(till: Till, saver: Saver) -> None:
    await saver.run_and_spend()
    await till.call("DELETE", "/v1/topup/stripe/card", saver.payer.secret)
    for _ in range(2):
        await saver.run()

    assert await saver.status() == "no_card"
    assert len(saver.payments()) == 1


async def test_what_is_turned_off_is_off_until_it_is_turned_on(till: Till, saver: Saver) -> None:
    await saver.turn_off()
    await saver.run()
    assert await saver.statuses() == []
    assert (await till.call("GET", AUTOMATIC, saver.payer.secret)).status == 404

    await saver.turn_on()
    await saver.run()

    assert await saver.statuses() == ["credited"]


async def test_the_same_idempotency_key_is_the_same_change(till: Till, saver: Saver) -> None:
    await saver.turn_on(amount=2000, Idempotency_Key="k")
    await saver.turn_off()

    again = await saver.turn_on(amount=2000, Idempotency_Key="k")
    other = await saver.turn_on(amount=3000, Idempotency_Key="k")

    assert (again.status, again.code) == (409, "conflict")  # it was turned off since
    assert (other.status, other.code) == (409, "idempotency_mismatch")


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"threshold": -1}, "threshold_cents"),
        ({"amount": 499}, "amount_cents"),
        ({"amount": 100_001, "cap": 200_000}, "amount_cents"),
        ({"amount": "1000.5"}, "amount_cents"),
        ({"cap": 999}, "monthly_cap_cents"),
        ({"cap": 10**30}, "monthly_cap_cents"),
        ({"cap": "much"}, "monthly_cap_cents"),
    ],
    ids=str,
)
async def test_a_setting_that_makes_no_sense_changes_nothing(
    till: Till, saver: Saver, wrong: dict[str, int], param: str
) -> None:
    before = await saver.shown()

    answer = await saver.turn_on(**wrong)

    assert (answer.status, answer.code, answer.body["error"]["param"]) == (400, "invalid_request", param)
    assert await saver.shown() == before


async def test_a_key_with_limits_and_a_service_token_cannot_change_it(till: Till) -> None:
    for payer in (await till.payer(rate_limit_rpm=60), Payer("", await till.service_token("admin"))):
        saver = Saver(till, payer)
        assert (await saver.turn_on()).code == "forbidden"
        assert (await till.call("DELETE", AUTOMATIC, payer.secret)).code == "forbidden"


async def test_without_secrets_it_is_off(closed_till: Till) -> None:
    payer = await closed_till.payer()

    assert (await Saver(closed_till, payer).turn_on()).code == "payments_not_configured"
    assert (await closed_till.call("GET", AUTOMATIC, payer.secret)).code == "payments_not_configured"
