"""The routes of balance transactions and payouts, and what a test may do to them."""

import msgspec
from aiohttp import web

from simulated_stripe.balance import Balance
from simulated_stripe.objects import Books, Object
from simulated_stripe.replies import json_reply, page_reply, read, shown_reply


class Money(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    amount: int
    currency: str = "usd"


class PlantedPayment(Money, frozen=True, kw_only=True, forbid_unknown_fields=True):
    created: int | None = None  # seconds since 1970; now


class Alteration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    amount: int


class PayoutWished(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    currency: str = "usd"


class BalanceRoutes:
    """All but retrieving a thing by its id, which is the same for all things."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self.balance = Balance(books)
        books.movements = self.balance.follow

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/v1/balance_transactions", self.list_transactions)
        app.router.add_post("/_simulator/payouts", self.pay_out)
        app.router.add_post("/_simulator/payouts/{id}/arrive", self.arrive)
        app.router.add_post("/_simulator/payouts/{id}/fail", self.fail)
        app.router.add_post("/_simulator/stripe_fees", self.charge_fee)
        app.router.add_post("/_simulator/payments", self.plant_payment)
        app.router.add_post("/_simulator/balance_transactions/{id}/forget", self.forget)
        app.router.add_post("/_simulator/balance_transactions/{id}/alter", self.alter)

    async def list_transactions(self, request: web.Request) -> web.Response:
        return page_reply(request, self.balance.listed(dict(request.query)))

    async def pay_out(self, request: web.Request) -> web.Response:
        return shown_reply(self.balance.pay_out((await read(request, PayoutWished)).currency))

    async def arrive(self, request: web.Request) -> web.Response:
        payout = self._named(request, "payout")
        self.balance.arrive(payout)
        return shown_reply(payout)

    async def fail(self, request: web.Request) -> web.Response:
        payout = self._named(request, "payout")
        self.balance.fail(payout)
        return shown_reply(payout)

    async def charge_fee(self, request: web.Request) -> web.Response:
        fee = await read(request, Money)
        return shown_reply(self.balance.charge_fee(fee.amount, fee.currency))

    async def plant_payment(self, request: web.Request) -> web.Response:
        payment = await read(request, PlantedPayment)
        return shown_reply(self.balance.plant_payment(payment.amount, payment.currency, payment.created))

    async def forget(self, request: web.Request) -> web.Response:
        self.balance.forget(self._named(request, "balance_transaction"))
        return json_reply({})

    async def alter(self, request: web.Request) -> web.Response:
        transaction = self._named(request, "balance_transaction")
        self.balance.alter(transaction, (await read(request, Alteration)).amount)
        return shown_reply(transaction)

    def _named(self, request: web.Request, kind: str) -> Object:
        return self._books.get(request.match_info["id"], kind)
