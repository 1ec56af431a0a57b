"""A demo with payments and somebody who pays there; and the simulated Stripe, which does what it is told."""

import os
import signal
from decimal import Decimal
from typing import Any

from tests.acceptance.client import Answer, Http
from tests.acceptance.customers import Customer
from tests.acceptance.running_demo import RunningDemo, until

WEBHOOK = "/v1/topup/stripe/webhook"


class Stripe:
    """The simulation, as the customer, the bank, and somebody who has its events."""

    def __init__(self, url: str) -> None:
        self.http = Http(url)

    async def play(self, path: str, /, **how: Any) -> Any:
        answer = await self.http.post(f"/_simulator/{path}", how)
        assert answer.status == 200, answer
        return answer.json

    async def pay(self, session_id: str) -> Any:
        return await self.play(f"sessions/{session_id}/pay")

    async def endpoint(self, demo: RunningDemo, **how: Any) -> None:
        url = f"{demo.information.server_url}{WEBHOOK}"
        await self.play("endpoint", url=url, secret="whsec_demo", **how)

    async def events(self) -> list[Any]:
        """All of them, with their bodies and signatures of this moment."""
        return list((await self.http.get("/_simulator/events")).json)

    async def taken(self) -> int:
        """How many deliveries were answered 200."""
        attempts = (await self.http.get("/_simulator/attempts")).json
        return sum(attempt["status"] == 200 for attempt in attempts)


class Shop:
    """A demo with payments, one worker, and a customer with a dollar granted."""

    def __init__(self, demo: RunningDemo, stripe: Stripe, customer: Customer) -> None:
        self.demo = demo
        self.stripe = stripe
        self.customer = customer

    async def order(self, cents: int = 2500, **headers: str) -> Answer:
        sent = {**self.customer.bearer(), **headers}
        return await self.demo.http.post("/v1/topup/stripe/checkout", {"amount_cents": cents}, headers=sent)

    async def ordered(self, cents: int = 2500) -> str:
        """The id of a session to pay."""
        answer = await self.order(cents)
        assert answer.status == 201, answer
        return str(answer.json["session_id"])

    async def history(self) -> list[Any]:
        answer = await self.demo.http.get("/v1/topup/history", headers=self.customer.bearer())
        assert answer.status == 200, answer
        return list(answer.json)

    async def tell(self, event: Any, signature: str | None = None) -> int:
        """Deliver an event ourselves; gives the status."""
        headers = {"Stripe-Signature": event["signature"] if signature is None else signature}
        return (await self.demo.http.call("POST", WEBHOOK, raw=event["body"].encode(), headers=headers)).status

    async def until_status(self, status: str) -> Any:
        """The last top-up, once it has this status."""

        async def reached() -> Any:
            lines = await self.history()
            return lines[0] if lines and lines[0]["status"] == status else None

        return await until(reached)

    async def until_nothing_waits(self) -> None:
        async def done() -> bool:
            rows = await self.demo.fetch("SELECT 1 FROM payment_notifications WHERE status = 'received'")
            return not rows

        await until(done)

    async def count(self, type_: str) -> int:
        """The customer's events of this type."""
        rows = await self.demo.fetch(
            "SELECT count(*) AS n FROM events WHERE stream_id = $1 AND type = $2", self.customer.account_id, type_
        )
        return int(rows[0]["n"])

    async def balance(self) -> Decimal:
        me = await self.demo.http.get("/v1/users/me", headers=self.customer.bearer(self.customer.session))
        return Decimal(me.json["credit_balance_cents"])

    async def kill_worker(self) -> None:
        workers = self.demo.gate_workers
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        await self.demo.until_workers_serve(instead_of=workers)
