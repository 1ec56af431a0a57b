"""Customers who top up by Stripe meanwhile: they ask for a page until it is given, pay once, and dispute at times."""

import asyncio
import random
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec

from tests.acceptance.client import Http
from tests.faults.furnishing import Payer

CHECKOUT = "/v1/topup/stripe/checkout"
API_KEY, WEBHOOK_SECRET = "sk_test_faults", "whsec_faults"
CENTS = (500, 1_234, 10_000)
#: A page that was not given is asked for again after so long, by its Idempotency-Key.
AGAIN_AFTER_S = 0.3


class Purchase(msgspec.Struct, kw_only=True):
    """A top-up that was paid at Stripe, and what Stripe has taken back of it since."""

    topup_id: str
    payment_id: str
    cents: int
    taken_back_cents: int = 0


class Buyers:
    """They go on until told to stop. Only those that were paid are in ``purchases``."""

    def __init__(self, url: str, stripe_url: str, payers: list[Payer], *, seed: int, buyers: int) -> None:
        self.purchases: list[Purchase] = []
        self._gate = Http(url)
        self._stripe = Http(stripe_url)
        self._payers = payers
        self._seed = seed
        self._stopping = asyncio.Event()
        self._tasks = [asyncio.create_task(self._buy_on(number)) for number in range(buyers)]

    async def stop(self) -> None:
        """Let each of them finish what it is at, and have Stripe tell of everything once more, in another order."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)
        told = (await self._stripe.get("/_simulator/events")).json
        random.Random(f"{self._seed}/told again").shuffle(told)
        for event in told:
            await self._at_stripe(f"/_simulator/events/{msgspec.json.decode(event['body'])['id']}/deliver")

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._gate.close()
        await self._stripe.close()

    async def _buy_on(self, buyer: int) -> None:
        chance = random.Random(f"{self._seed}/buyer/{buyer}")
        number = 0
        while not self._stopping.is_set():
            number += 1
            page = await self._page(chance.choice(self._payers), chance.choice(CENTS), f"buy-{buyer}-{number}")
            if page is not None:
                await self._pay(chance, page)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), chance.random())

    async def _page(self, payer: Payer, cents: int, key: str) -> dict[str, Any] | None:
        """Where to pay; None when the end comes first."""
        headers = {"Authorization": f"Bearer {payer.secret}", "Idempotency-Key": key}
        while not self._stopping.is_set():
            with suppress(aiohttp.ClientError, OSError, TimeoutError):
                answer = await self._gate.post(CHECKOUT, {"amount_cents": cents}, headers=headers)
                if answer.status == 201:
                    return {**answer.json, "cents": cents}
            await asyncio.sleep(AGAIN_AFTER_S)
        return None

    async def _pay(self, chance: random.Random, page: dict[str, Any]) -> None:
        payment = await self._at_stripe(f"/_simulator/sessions/{page['session_id']}/pay")
        payment_id = payment["id"]
        bought = Purchase(topup_id=page["topup_id"], payment_id=payment_id, cents=page["cents"])
        self.purchases.append(bought)
        draw = chance.random()
        if draw < 0.2:
            bought.taken_back_cents = chance.randrange(1, bought.cents)
            await self._refund(payment_id, bought.taken_back_cents)
        elif draw < 0.4:
            await self._dispute(bought, wins=draw < 0.3)

    async def _refund(self, payment_id: str, cents: int) -> None:
        form = urlencode({"payment_intent": payment_id, "amount": cents}).encode()
        headers = {"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/x-www-form-urlencoded"}
        answer = await self._stripe.call("POST", "/v1/refunds", raw=form, headers=headers)
        assert answer.status == 200, answer

    async def _dispute(self, bought: Purchase, *, wins: bool) -> None:
        headers = {"Authorization": f"Bearer {API_KEY}"}
        payment = (await self._stripe.get(f"/v1/payment_intents/{bought.payment_id}", headers=headers)).json
        dispute = await self._at_stripe(f"/_simulator/charges/{payment['latest_charge']}/dispute")
        status = "won" if wins else "lost"
        await self._at_stripe(f"/_simulator/disputes/{dispute['id']}/close", {"status": status})
        bought.taken_back_cents = 0 if wins else bought.cents

    async def _at_stripe(self, path: str, body: Any = None) -> Any:
        answer = await self._stripe.post(path, {} if body is None else body)
        assert answer.status == 200, answer
        return answer.json
