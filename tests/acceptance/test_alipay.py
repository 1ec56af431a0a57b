"""Alipay from outside: a demo with a simulated Alipay, whose notifications come over a real socket, signed."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from tests.acceptance.client import Answer, Http
from tests.acceptance.customers import Customer, new_customer
from tests.acceptance.running_demo import RunningDemo, place_for_demo, until

NOTIFY = "/v1/topup/alipay/notify"
FORM = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}


class Shop:
    """A demo with payments, one worker, and a customer with a dollar granted."""

    def __init__(self, demo: RunningDemo, alipay: Http, customer: Customer) -> None:
        self.demo = demo
        self.alipay = alipay
        self.customer = customer

    async def play(self, path: str, **how: Any) -> None:
        answer = await self.alipay.post(f"/_simulator/{path}", how)
        assert answer.status == 200, answer

    async def ordered(self, cents: int = 2500) -> str:
        """The id of a top-up whose page the customer has opened."""
        answer = await self.demo.http.post(
            "/v1/topup/alipay/checkout", {"amount_cents": cents}, headers=self.customer.bearer()
        )
        assert answer.status == 201, answer
        await self.open(answer.json["checkout_url"])
        return str(answer.json["topup_id"])

    async def open(self, url: str) -> Answer:
        page = await self.alipay.get(f"{urlsplit(url).path}?{urlsplit(url).query}")
        assert page.status == 200, page
        return page

    async def history(self) -> list[Any]:
        answer = await self.demo.http.get("/v1/topup/history", headers=self.customer.bearer())
        assert answer.status == 200, answer
        return list(answer.json)

    async def until_status(self, status: str) -> Any:
        """The last top-up, once it has this status."""

        async def reached() -> Any:
            line = (await self.history())[0]
            return line if line["status"] == status else None

        return await until(reached)

    async def bodies(self, order: str) -> list[str]:
        """What Alipay told of an order so far."""
        return [body for body in (await self.alipay.get("/_simulator/notifications")).json if order in body]

    async def tell(self, body: str) -> Answer:
        """Deliver a notification ourselves."""
        return await self.demo.http.call("POST", NOTIFY, raw=body.encode(), headers=FORM)

    async def answered(self) -> int:
        """How many deliveries were answered success."""
        attempts = (await self.alipay.get("/_simulator/attempts")).json
        return sum(attempt["answer"] == "success" for attempt in attempts)

    async def count(self, type_: str) -> int:
        """The customer's events of this type."""
        rows = await self.demo.fetch(
            "SELECT count(*) AS n FROM events WHERE stream_id = $1 AND type = $2", self.customer.account_id, type_
        )
        return int(rows[0]["n"])

    async def balance(self) -> Decimal:
        me = await self.demo.http.get("/v1/users/me", headers=self.customer.bearer(self.customer.session))
        return Decimal(me.json["credit_balance_cents"])


@pytest_asyncio.fixture(scope="module")
async def paying_demo() -> AsyncIterator[tuple[RunningDemo, Http]]:
    async with place_for_demo() as directory:
        demo = await RunningDemo.start(directory, workers=1, flags=["--payments"])
        alipay = Http(demo.information.alipay_url or "")
        try:
            yield demo, alipay
            await demo.assert_books_in_order()
            assert "Traceback" not in demo.output
            assert await demo.stop() == 0
            assert directory.processes() == []
            assert directory.leavings() == []
        finally:
            await alipay.close()
            await demo.kill()


@pytest_asyncio.fixture
async def shop(paying_demo: tuple[RunningDemo, Http], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shop]:
    demo, alipay = paying_demo
    for line in (demo.settings_file.parent / "alipay.env").read_text().splitlines():
        monkeypatch.setenv(*line.split("=", 1))  # for the commands beside it
    shop = Shop(demo, alipay, await new_customer(demo))
    yield shop
    await shop.play("faults")
    await shop.play("delivery")


async def test_a_customer_pays_on_the_page_and_has_the_money(shop: Shop) -> None:
    before = await shop.balance()
    topup_id = await shop.ordered(2500)

    await shop.alipay.post(f"/pay/{topup_id}", None)
    line = await shop.until_status("credited")

    assert await shop.balance() - before == 2500
    assert (line["id"], line["amount_cents"], line["source"]) == (topup_id, 2500, "alipay")


async def test_a_recharge_of_a_hundred_yuan_is_credited_in_dollars(shop: Shop) -> None:
    before = await shop.balance()
    body = {"provider": "alipay", "amount": 100, "currency": "CNY"}

    answer = await shop.demo.http.post("/unipay/user_recharge.dspy", body, headers=shop.customer.bearer())
    assert answer.json["status"] == "ok"
    await shop.open(answer.json["data"]["redirct"])
    topup_id = (await shop.history())[0]["id"]
    await shop.play(f"trades/{topup_id}/pay")
    await shop.until_status("credited")

    assert await shop.balance() - before == 1400


async def test_the_demo_says_how_to_pay_by_alipay(shop: Shop) -> None:
    for part in ("topup/alipay/checkout", "user_recharge.dspy", shop.demo.information.alipay_url, "alipay.env"):
        assert str(part) in shop.demo.output


@pytest.mark.money_bug(50)
async def test_a_worker_killed_between_storing_and_booking_and_five_deliveries_in_any_order_credit_once(
    shop: Shop,
) -> None:
    topup_id = await shop.ordered()
    answered = await shop.answered()
    await shop.play("faults", hang_s=600)  # booking begins, and waits for Alipay's word
    await shop.play(f"trades/{topup_id}/pay")

    async def told_success() -> bool:
        return await shop.answered() > answered

    await until(told_success)
    workers = shop.demo.gate_workers
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    await shop.play("faults")
    await shop.demo.until_workers_serve(instead_of=workers)
    deliveries = await shop.bodies(topup_id) * 5
    random.Random(1).shuffle(deliveries)
    answers = await asyncio.gather(*[shop.tell(body) for body in deliveries])

    assert {(answer.status, answer.body) for answer in answers} == {(200, b"success")}
    await shop.until_status("credited")
    assert await shop.count("topup.credited") == 1


@pytest.mark.money_bug(48)
async def test_a_notification_that_somebody_altered_is_refused(shop: Shop) -> None:
    await shop.play("delivery", held=True)
    topup_id = await shop.ordered()
    await shop.play(f"trades/{topup_id}/pay")
    paid = (await shop.bodies(topup_id))[-1]

    answers = [
        await shop.tell(paid.replace("trade_status=TRADE_SUCCESS", "trade_status=TRADE_FINISHED")),
        await shop.tell(paid.replace("&sign=", "&sign=A")),
        await shop.tell(paid.partition("&sign=")[0]),
    ]

    assert [answer.status for answer in answers] == [400, 400, 400]
    assert (await shop.history())[0]["status"] == "requested"


@pytest.mark.money_bug(49)
async def test_a_payment_that_is_not_what_was_asked_for_is_listed_as_broken_and_a_replay_of_everything_changes_nothing(
    shop: Shop,
) -> None:
    topup_id = await shop.ordered()
    before = await shop.balance()
    await shop.play(f"trades/{topup_id}/pay", fen=1)

    async def alarmed() -> bool:
        return "payment.broken" in shop.demo.output

    await until(alarmed)
    listed = await shop.demo.command("payments", "notifications", "--status", "broken", "--provider", "alipay")
    events = await shop.demo.count_events()
    replayed = await shop.demo.command("payments", "replay", "--provider", "alipay")

    assert (listed.status, listed.err) == (0, "")
    assert "amount: " in listed.out
    assert replayed.status == 1  # one still does not fit
    assert topup_id in replayed.out
    assert await shop.demo.count_events() == events
    assert await shop.balance() == before


@pytest.mark.money_bug(51)
async def test_a_refund_at_alipay_is_taken_back(shop: Shop) -> None:
    before = await shop.balance()
    topup_id = await shop.ordered(1000)
    await shop.play(f"trades/{topup_id}/pay")
    await shop.until_status("credited")

    await shop.play(f"trades/{topup_id}/refund", fen=143)
    await shop.until_status("partly_reversed")
    await shop.play(f"trades/{topup_id}/refund", fen=7000)
    await shop.until_status("reversed")

    assert await shop.balance() == before


async def test_an_order_that_nobody_pays_expires(shop: Shop) -> None:
    topup_id = await shop.ordered()
    await shop.until_status("pending")

    await shop.play(f"trades/{topup_id}/close")

    await shop.until_status("expired")
