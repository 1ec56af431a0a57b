"""From the customer's wish to Alipay's page: an order in yuan, at the rate of its moment."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
import pytest_asyncio

from ledger import Ledger
from ledger.events import Paid, TopupRequested
from tests.conftest import Clock

from .alipay_till import APP_ID, OURS, AlipayTill, open_alipay_till
from .conftest import Payer, open_till


@pytest_asyncio.fixture
async def till(ledger: Ledger, clock: Clock) -> AsyncIterator[AlipayTill]:
    async with open_alipay_till(ledger, clock) as till:
        yield till


async def test_a_customer_in_dollars_is_asked_for_yuan_at_the_rate_of_the_moment(
    till: AlipayTill, payer: Payer
) -> None:
    answer = await till.checkout(payer, 1000)

    assert answer.status == 201
    assert (answer.body["amount_cents"], answer.body["yuan"]) == (1000, Decimal("71.43"))  # 10 / 0.14 = 71.428…
    assert till.biz_content(answer.body["checkout_url"])["total_amount"] == "71.43"
    requested = (await till.ledger.stream(payer.account_id))[-1].event
    assert isinstance(requested, TopupRequested)
    assert (requested.amount_microcents, requested.asked) == (1_000_000_000, Paid("CNY", Decimal("71.43")))
    assert requested.exchange_rate == Decimal("0.14")
    assert (requested.rate_source or "").startswith("price book at 20")


async def test_a_customer_in_yuan_pays_what_is_credited(till: AlipayTill) -> None:
    payer = await till.payer("CNY")

    answer = await till.checkout(payer, 2550)

    assert (answer.body["amount_cents"], answer.body["yuan"]) == (2550, Decimal("25.50"))
    requested = (await till.ledger.stream(payer.account_id))[-1].event
    assert isinstance(requested, TopupRequested)
    assert (requested.exchange_rate, requested.rate_source) == (None, None)


async def test_an_account_whose_currency_has_no_rate_is_refused(till: AlipayTill, payer: Payer) -> None:
    euros = await till.checkout(await till.payer("EUR"))
    till.rates.dollars = None
    dollars = await till.checkout(payer)
    recharge = await till.recharge(payer, 100)

    assert (euros.status, euros.code) == (dollars.status, dollars.code) == (400, "invalid_request")
    assert (recharge.status, recharge.body["status"]) == (400, "error")
    assert await till.history(payer) == []


async def test_a_rate_that_changes_before_the_payment_changes_nothing(till: AlipayTill, payer: Payer) -> None:
    first = await till.checkout(payer, 1000, Idempotency_Key="k")
    till.rates.dollars = Decimal("0.2")
    till.clock.now += timedelta(hours=1)

    again = await till.checkout(payer, 1000, Idempotency_Key="k")
    other = await till.checkout(payer, 2000, Idempotency_Key="k")

    assert (again.status, again.body["topup_id"]) == (201, first.body["topup_id"])
    assert again.body["yuan"] == first.body["yuan"]
    assert (other.status, other.code) == (409, "idempotency_mismatch")
    trade = await till.open(again.body["checkout_url"])
    till.alipay.trades.pay(trade)
    await till.tell_all()
    assert await till.credited(payer) == 1000


async def test_many_at_once_with_the_same_key_make_one_order(till: AlipayTill, payer: Payer) -> None:
    answers = await asyncio.gather(*[till.checkout(payer, 1000, Idempotency_Key="k") for _ in range(8)])

    assert {answer.status for answer in answers} == {201}
    assert len({answer.body["topup_id"] for answer in answers}) == 1
    assert await till.events_of(payer) == ["topup.requested"]


async def test_a_key_whose_top_up_is_paid_is_refused(till: AlipayTill, payer: Payer) -> None:
    trade = await till.open((await till.checkout(payer, 1000, Idempotency_Key="k")).body["checkout_url"])
    till.alipay.trades.pay(trade)
    await till.tell_all()

    again = await till.checkout(payer, 1000, Idempotency_Key="k")

    assert (again.status, again.code) == (409, "conflict")


@pytest.mark.parametrize("cents", [499, 100_001, 0, -500, 10**30, "1000.0000001"])
async def test_an_amount_that_cannot_be_topped_up_by_is_refused(till: AlipayTill, payer: Payer, cents: Any) -> None:
    answer = await till.checkout(payer, str(cents))

    assert (answer.status, answer.code) == (400, "invalid_request")
    assert await till.history(payer) == []


async def test_a_recharge_is_answered_with_the_page_under_the_name_that_its_clients_read(
    till: AlipayTill, payer: Payer
) -> None:
    answer = await till.recharge(payer, 100)

    assert (answer.status, answer.body["status"], list(answer.body["data"])) == (200, "ok", ["redirct"])
    trade = await till.open(answer.body["data"]["redirct"])
    assert trade.fen == 10_000
    till.alipay.trades.pay(trade)
    await till.tell_all()
    assert await till.credited(payer) == 1400  # 100 yuan at 0.14


@pytest.mark.parametrize(
    ("amount", "currency", "provider"),
    [
        (100, "USD", "alipay"),
        (100, "CNY", "stripe"),
        ("0.001", "CNY", "alipay"),
        ("100.001", "CNY", "alipay"),
        ("1E+999999", "CNY", "alipay"),
        ("1E-999999", "CNY", "alipay"),
        ("NaN", "CNY", "alipay"),
        (-100, "CNY", "alipay"),
        (0, "CNY", "alipay"),
        (1, "CNY", "alipay"),  # below the smallest top-up
    ],
)
async def test_a_recharge_of_anything_else_is_refused(
    till: AlipayTill, payer: Payer, amount: Any, currency: str, provider: str
) -> None:
    answer = await till.recharge(payer, amount, currency, provider)

    assert (answer.status, answer.body["status"]) == (400, "error")
    assert await till.history(payer) == []


async def test_without_its_keys_every_route_of_alipay_is_off(ledger: Ledger, clock: Clock) -> None:
    async with open_alipay_till(ledger, clock, configured=False) as till:
        payer = await till.payer()

        checkout = await till.checkout(payer)
        recharge = await till.recharge(payer, 100)
        told = await till.post(b"notify_id=1")

        assert (checkout.status, checkout.code) == (503, "payments_not_configured")
        assert (recharge.status, recharge.body["status"]) == (503, "error")
        assert told.status == 503
        assert await till.outcomes() == []


async def test_no_key_is_stored_or_shown(till: AlipayTill, payer: Payer) -> None:
    url = (await till.checkout(payer)).body["checkout_url"]

    fields = dict(parse_qsl(urlsplit(url).query))
    assert fields["app_id"] == APP_ID
    for told in (repr(till.alipay_config), urlencode(fields)):
        assert OURS.private_text not in told


@pytest.mark.money_bug(48)
async def test_an_order_of_alipay_is_not_credited_by_a_payment_of_stripe(till: AlipayTill, clock: Clock) -> None:
    payer = await till.payer()
    ordered = await till.checkout(payer, 1000)
    async with open_till(till.ledger, clock) as by_stripe:
        await by_stripe.paid(await by_stripe.payer())
        (event,) = by_stripe.events("payment_intent.succeeded")
        event["data"]["object"]["metadata"] = {
            "tollgate_account": payer.account_id,
            "tollgate_topup": ordered.body["topup_id"],
        }

        await by_stripe.tell(event)

    ((status, outcome),) = await till.outcomes()
    assert (status, outcome.partition(":")[0]) == ("broken", "provider")
    assert await till.credited(payer) == 0
