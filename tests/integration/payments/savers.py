"""Customers who have saved a card and set up automatic top-ups, at a till."""

from typing import Any

from simulated_stripe.objects import Object

from .conftest import AUTOMATIC, CARD, Answer, Payer, Till

THRESHOLD, AMOUNT, CAP = 500, 1000, 100_000


class Saver:
    """An account with a saved card, which is empty unless somebody pays."""

    def __init__(self, till: Till, payer: Payer) -> None:
        self.till = till
        self.payer = payer

    async def save(self, number: str = "4242424242424242") -> Object:
        """Save a card, later than any other; gives it as Stripe has it."""
        self.till.clock.advance(seconds=1)
        page = await self.till.call("POST", CARD, self.payer.secret)
        assert page.status == 201, page
        session = self.till.books.get(page.body["session_id"], "checkout.session")
        card = self.till.stripe.cards.wallets.complete_session(session, number=number)
        await self.till.tell(self.till.events("checkout.session.completed")[-1])
        return card

    async def turn_on(
        self, *, threshold: int = THRESHOLD, amount: int = AMOUNT, cap: int = CAP, **headers: str
    ) -> Answer:
        self.till.clock.advance(seconds=1)
        body = {"threshold_cents": threshold, "amount_cents": amount, "monthly_cap_cents": cap}
        return await self.till.call("PUT", AUTOMATIC, self.payer.secret, body, **headers)

    async def turn_off(self) -> None:
        assert (await self.till.call("DELETE", AUTOMATIC, self.payer.secret)).status == 204

    async def shown(self) -> Any:
        answer = await self.till.call("GET", AUTOMATIC, self.payer.secret)
        assert answer.status == 200, answer
        return answer.body

    async def status(self) -> str:
        return str((await self.shown())["status"])

    async def run(self) -> None:
        """What a worker does every few seconds."""
        self.till.clock.advance(seconds=5)
        await self.till.road.automatic.run()

    async def run_and_spend(self) -> None:
        """Be topped up, and need it again."""
        before = await self.till.credited(self.payer)
        await self.run()
        if await self.till.credited(self.payer) > before:
            await self.till.spend(self.payer, AMOUNT)

    async def statuses(self) -> list[str]:
        """Of the account's top-ups, oldest first."""
        return [line["status"] for line in reversed(await self.till.history(self.payer))]

    def payments(self, *statuses: str) -> list[Object]:
        """Stripe's payment intents of the account, oldest first."""
        intents = reversed(self.till.books.all_of("payment_intent"))
        own = [each for each in intents if each["metadata"].get("tollgate_account") == self.payer.account_id]
        return [each for each in own if not statuses or each["status"] in statuses]

    async def tell_all(self) -> None:
        """Everything that Stripe has to tell."""
        for event in self.till.events():
            await self.till.tell(event)
