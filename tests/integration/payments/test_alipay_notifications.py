"""What Alipay tells: a trade is credited once, after Alipay was asked for it, whatever is told and how often."""

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from ledger import Ledger, RequestTopup, microcents_from_cents
from ledger.events import Paid
from payments import NotificationsAsked
from simulated_alipay.server import Faults
from tests.conftest import Clock

from .alipay_till import NOBODYS, OURS, THEIRS, AlipayTill, altered, open_alipay_till
from .conftest import Payer, trial_balance


@pytest_asyncio.fixture
async def till(ledger: Ledger, clock: Clock) -> AsyncIterator[AlipayTill]:
    async with open_alipay_till(ledger, clock) as till:
        yield till


@pytest.mark.money_bug(49, 50)
async def test_a_paid_trade_is_credited_once_after_alipay_was_asked_for_it(till: AlipayTill, payer: Payer) -> None:
    trade = await till.opened(payer)
    till.alipay.trades.pay(trade)

    await till.tell_all()

    assert await till.credited(payer) == 1000
    assert till.alipay.questions == [trade.out_trade_no]
    assert await till.events_of(payer) == ["topup.requested", "topup.pending", "topup.credited"]
    (line,) = await till.history(payer)
    assert (line["status"], line["source"], line["reference_id"]) == ("credited", "alipay", trade.trade_no)
    assert await trial_balance(till.ledger.pool) == 0


@pytest.mark.money_bug(50)
@pytest.mark.parametrize("seed", range(5))
async def test_every_notification_five_times_in_any_order_credits_once_and_takes_back_what_was_refunded(
    till: AlipayTill, payer: Payer, seed: int
) -> None:
    trade = await till.opened(payer)
    till.alipay.trades.pay(trade)
    till.alipay.trades.refund(trade, 2000)
    till.alipay.trades.refund(trade, 1000)
    bodies = till.told() * 5
    random.Random(seed).shuffle(bodies)

    answers = await asyncio.gather(*[till.tell(body) for body in bodies])

    assert {answer.body for answer in answers} == {"success"}
    assert (await till.events_of(payer)).count("topup.credited") == 1
    assert {status for status, _ in await till.outcomes()} <= {"processed", "ignored"}
    # 30 of 71.43 yuan: 1000 cents × 30 / 71.43, the microcent below
    assert await till.credited(payer) == 1000 - Decimal("419.991600")
    assert await trial_balance(till.ledger.pool) == 0


async def test_a_trade_that_is_finished_is_credited_too(till: AlipayTill, payer: Payer) -> None:
    trade = await till.opened(payer)
    till.alipay.trades.pay(trade)
    till.alipay.trades.finish(trade)

    await till.tell(till.told()[-1])

    assert await till.credited(payer) == 1000


async def test_a_whole_refund_takes_back_the_whole_amount_also_when_it_is_told_first(
    till: AlipayTill, payer: Payer
) -> None:
    trade = await till.opened(payer)
    till.alipay.trades.pay(trade)
    till.alipay.trades.refund(trade, trade.fen)

    for body in reversed(till.told()):
        await till.tell(body)

    assert await till.credited(payer) == 0
    assert await till.status_of(payer) == "reversed"
    assert await till.events_of(payer) == ["topup.requested", "topup.credited", "topup.reversed"]


async def test_what_was_given_back_before_it_was_told_of_is_never_there_to_be_spent(
    till: AlipayTill, payer: Payer
) -> None:
    trade = await till.opened(payer)
    till.alipay.trades.pay(trade)
    till.alipay.trades.refund(trade, trade.fen)
    _, paid, refunded = till.told()

    await till.tell(paid)
    assert await till.events_of(payer) == ["topup.requested"]
    await till.tell(refunded)

    assert await till.events_of(payer) == ["topup.requested", "topup.credited", "topup.reversed"]


async def test_what_was_spent_before_it_is_refunded_is_debt(till: AlipayTill, payer: Payer) -> None:
    trade = await till.opened(payer)
    till.alipay.trades.pay(trade)
    await till.tell_all()
    await till.spend(payer, 1000)
    till.alipay.trades.refund(trade, trade.fen)

    await till.tell_all()

    account = await till.ledger.account(payer.account_id)
    assert account is not None
    assert account.available == microcents_from_cents(Decimal(-1000))


async def test_an_order_that_nobody_pays_expires_and_is_credited_if_it_was_paid_after_all(
    till: AlipayTill, payer: Payer
) -> None:
    trade = await till.opened(payer)
    till.alipay.trades.close(trade)
    await till.tell_all()
    assert await till.status_of(payer) == "expired"

    trade.status = "WAIT_BUYER_PAY"  # closed in error
    till.alipay.trades.pay(trade)
    await till.tell(till.told()[-1])

    assert await till.credited(payer) == 1000


# --- what is not


@pytest.mark.money_bug(48)
@pytest.mark.parametrize(
    "changes",
    [{"total_amount": "0.01"}, {"trade_status": "TRADE_FINISHED"}, {"sign": ""}, {"sign": "é"}, {"sign_type": "RSA"}],
    ids=str,
)
async def test_what_alipay_did_not_sign_is_refused_and_leaves_nothing(
    till: AlipayTill, payer: Payer, changes: dict[str, str]
) -> None:
    trade = await till.opened(payer)
    till.alipay.trades.pay(trade)

    answer = await till.tell(altered(till.told()[-1], **changes))

    assert answer.status == 400
    assert await till.outcomes() == []
    assert till.alipay.questions == []


@pytest.mark.money_bug(48)
@pytest.mark.parametrize("key", [NOBODYS, OURS], ids=["nobody's", "our own"])
async def test_what_somebody_else_signed_is_refused(till: AlipayTill, payer: Payer, key: Any) -> None:
    trade = await till.opened(payer)
    till.alipay.trades.pay(trade)

    assert (await till.tell(altered(till.told()[-1], key))).status == 400
    assert await till.outcomes() == []


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff", b"a=%ff", b"a", b"sign=AA==&sign_type=RSA2", b"{}", b"a=1&a=2", b"&" * 1000, b"a=1&" * 70_000],
    ids=lambda body: str(body[:30]),
)
async def test_what_is_no_notification_is_refused(till: AlipayTill, body: bytes) -> None:
    assert (await till.tell(body)).status == 400
    assert await till.outcomes() == []


async def test_a_field_that_is_there_twice_is_refused_though_one_of_the_two_is_signed(
    till: AlipayTill, payer: Payer
) -> None:
    trade = await till.opened(payer)
    till.alipay.trades.pay(trade)

    answer = await till.tell(b"total_amount=0.01&" + till.told()[-1])

    assert answer.status == 400


@pytest.mark.money_bug(49)
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"app_id": "2021000000000002"}, "app"),
        ({"seller_id": "2088000000000002"}, "seller"),
        ({"total_amount": "71.42"}, "amount"),
        ({"out_trade_no": "topup_of_nobody"}, "unknown"),
        ({"trade_no": "2026112122001000000"}, "trade"),
        ({"trade_no": ""}, "unreadable"),
    ],
    ids=str,
)
async def test_what_alipay_signed_but_we_did_not_ask_for_is_a_break_and_credits_nothing(
    till: AlipayTill, payer: Payer, changes: dict[str, str], reason: str
) -> None:
    trade = await till.opened(payer)
    till.alipay.trades.pay(trade)

    with capture_logs() as logs:
        answer = await till.tell(altered(till.told()[-1], THEIRS, **changes))

    assert answer.body == "success"  # it is kept, and coming again would change nothing
    ((status, outcome),) = await till.outcomes()
    assert (status, outcome.partition(":")[0]) == ("broken", reason)
    assert [log["reason"] for log in logs if log["event"] == "payment.broken"] == [reason]
    assert await till.events_of(payer) == ["topup.requested"]


@pytest.mark.money_bug(49)
async def test_another_amount_than_asked_for_is_a_break_also_when_alipay_itself_says_so(
    till: AlipayTill, payer: Payer
) -> None:
    trade = await till.opened(payer)
    till.alipay.trades.pay(trade, fen=1)
    paid = till.told()[-1]

    await till.tell(paid)
    await till.tell(altered(paid, THEIRS, notify_id="2", total_amount="71.43"))

    assert [outcome.partition(":")[0] for _, outcome in await till.outcomes()] == ["amount", "TopupMismatch"]
    assert await till.credited(payer) == 0


@pytest.mark.money_bug(49)
async def test_an_order_of_stripe_is_not_credited_by_a_trade_of_alipay(till: AlipayTill, payer: Payer) -> None:
    trade = await till.opened(payer)
    till.alipay.trades.pay(trade)
    await till.ledger.submit(
        RequestTopup(
            stream_id=payer.account_id,
            topup_id="topup_of_stripe",
            provider="stripe",
            amount_microcents=microcents_from_cents(1000),
            asked=Paid("CNY", Decimal("71.43")),
            requested_by="user_1",
            idempotency_key="topup_of_stripe",
        )
    )

    await till.tell(altered(till.told()[-1], THEIRS, out_trade_no="topup_of_stripe"))

    ((status, outcome),) = await till.outcomes()
    assert (status, outcome.partition(":")[0]) == ("broken", "provider")
    assert await till.credited(payer) == 0


async def test_a_paid_trade_that_is_closed_without_a_refund_is_a_break(till: AlipayTill, payer: Payer) -> None:
    trade = await till.opened(payer)
    till.alipay.trades.pay(trade)
    paid = till.told()[-1]
    await till.tell(paid)

    await till.tell(altered(paid, THEIRS, notify_id="2", trade_status="TRADE_CLOSED"))

    assert [status for status, _ in await till.outcomes()] == ["processed", "broken"]
    assert await till.credited(payer) == 1000


# --- when Alipay, or we, fail


@pytest.mark.parametrize(
    "faults",
    [
        Faults(status=503),
        Faults(hang_s=30),
        Faults(is_busy=True),
        Faults(unsigned=True),
        Faults(trade_status="WAIT_BUYER_PAY"),
    ],
    ids=["error", "silence", "busy", "signed by nobody", "not paid yet"],
)
async def test_what_alipay_does_not_confirm_is_not_credited_until_it_does(
    till: AlipayTill, payer: Payer, faults: Faults
) -> None:
    trade = await till.opened(payer)
    till.alipay.trades.pay(trade)
    till.alipay.faults = faults
    answer = await till.tell(till.told()[-1])
    assert (answer.status, answer.body) == (200, "success")
    assert await till.events_of(payer) == ["topup.requested"]
    assert [status for status, _ in await till.outcomes()] == ["received"]
    till.alipay.faults = Faults()
    till.clock.now += timedelta(minutes=1)

    assert till.alipay_road is not None
    assert await till.alipay_road.inbox.process_waiting() == 1

    assert await till.credited(payer) == 1000


async def test_a_trade_that_alipay_does_not_have_is_a_break(till: AlipayTill, payer: Payer) -> None:
    trade = await till.opened(payer)
    till.alipay.trades.pay(trade)
    till.alipay.trades.by_order.clear()

    await till.tell(till.told()[-1])

    ((status, outcome),) = await till.outcomes()
    assert (status, outcome.partition(":")[0]) == ("broken", "unknown")


async def test_a_replay_books_what_was_broken_and_nothing_twice(till: AlipayTill, payer: Payer) -> None:
    trade = await till.opened(payer)
    till.alipay.trades.pay(trade)
    kept = dict(till.alipay.trades.by_order)
    till.alipay.trades.by_order.clear()
    await till.tell_all()
    till.alipay.trades.by_order.update(kept)

    assert till.alipay_road is not None
    for _ in range(3):
        replayed = [each.status async for each in till.alipay_road.inbox.replay(NotificationsAsked(provider="alipay"))]

    assert replayed[-1] == "processed"
    assert await till.credited(payer) == 1000
    assert (await till.events_of(payer)).count("topup.credited") == 1


async def test_the_body_and_its_headers_are_kept_word_for_word(till: AlipayTill, payer: Payer) -> None:
    await till.opened(payer)
    (body,) = till.told()

    await till.tell(body)

    row = await till.ledger.pool.fetchrow("SELECT * FROM payment_notifications")
    assert row is not None
    assert (row["body"], row["event_type"]) == (body, "WAIT_BUYER_PAY")
    assert "content-type" in row["headers"].lower()


async def test_when_postgres_is_away_alipay_is_not_told_success(till: AlipayTill, payer: Payer) -> None:
    await till.opened(payer)
    (body,) = till.told()
    await till.ledger.pool.close()

    answer = await till.post(body)

    assert answer.status == 503
    assert "success" not in answer.body
