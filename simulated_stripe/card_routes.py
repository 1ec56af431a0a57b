"""The routes of customers, their cards, and payments with a saved card; and what a test may do to them."""

import msgspec
from aiohttp import web

from simulated_stripe.cards import Wallets
from simulated_stripe.forms import parse_form
from simulated_stripe.objects import Books, shown
from simulated_stripe.replies import json_reply, page_reply, read, shown_reply


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which of the test cards a customer enters."""

    number: str = "4242424242424242"


class Outcome(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What becomes of the payments with a card: see ``Wallets.change_outcome``."""

    outcome: str | None = None


class Settlement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    succeeds: bool = True


class CardRoutes:
    """All but retrieving a thing by its id, which is the same for all things."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self.wallets = Wallets(books)

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/v1/customers", self.create_customer)
        app.router.add_get("/v1/setup_intents/{id}", self.retrieve_setup)
        app.router.add_get("/v1/payment_methods", self.list_methods)
        app.router.add_post("/v1/payment_methods/{id}/detach", self.detach)
        app.router.add_post("/v1/payment_intents", self.create_payment)
        app.router.add_get("/v1/payment_intents", self.list_payments)
        app.router.add_post("/v1/payment_intents/{id}/confirm", self.confirm_payment)
        app.router.add_post("/v1/payment_intents/{id}/cancel", self.cancel_payment)
        app.router.add_post("/_simulator/sessions/{id}/complete", self.complete_session)
        app.router.add_post("/_simulator/payment_methods/{id}/outcome", self.change_outcome)
        app.router.add_post("/_simulator/payment_intents/{id}/settle", self.settle_payment)

    async def create_customer(self, request: web.Request) -> web.Response:
        return shown_reply(self.wallets.create_customer(parse_form(await request.read())))

    async def retrieve_setup(self, request: web.Request) -> web.Response:
        setup = shown(self._books.get(request.match_info["id"], "setup_intent"))
        if setup["payment_method"] is not None and "payment_method" in request.query.getall("expand[0]", []):
            setup["payment_method"] = shown(self._books.get(setup["payment_method"], "payment_method"))
        return json_reply(setup)

    async def list_methods(self, request: web.Request) -> web.Response:
        customer = self._books.get(request.query["customer"], "customer")
        return page_reply(request, self._books.all_of("payment_method", customer=customer["id"]))

    async def detach(self, request: web.Request) -> web.Response:
        method = self._books.get(request.match_info["id"], "payment_method")
        self.wallets.detach(method)
        return shown_reply(method)

    async def create_payment(self, request: web.Request) -> web.Response:
        return shown_reply(self.wallets.create_payment(parse_form(await request.read())))

    async def list_payments(self, request: web.Request) -> web.Response:
        having = {name: request.query[name] for name in ("customer",) if name in request.query}
        return page_reply(request, self._books.all_of("payment_intent", **having))

    async def confirm_payment(self, request: web.Request) -> web.Response:
        intent = self._books.get(request.match_info["id"], "payment_intent")
        self.wallets.confirm_payment(intent, parse_form(await request.read()))
        return shown_reply(intent)

    async def cancel_payment(self, request: web.Request) -> web.Response:
        intent = self._books.get(request.match_info["id"], "payment_intent")
        self.wallets.cancel_payment(intent)
        return shown_reply(intent)

    async def complete_session(self, request: web.Request) -> web.Response:
        card = await read(request, Card)
        session = self._books.get(request.match_info["id"], "checkout.session")
        return shown_reply(self.wallets.complete_session(session, number=card.number))

    async def change_outcome(self, request: web.Request) -> web.Response:
        method = self._books.get(request.match_info["id"], "payment_method")
        self.wallets.change_outcome(method, (await read(request, Outcome)).outcome)
        return shown_reply(method)

    async def settle_payment(self, request: web.Request) -> web.Response:
        intent = self._books.get(request.match_info["id"], "payment_intent")
        self.wallets.settle_payment(intent, succeeds=(await read(request, Settlement)).succeeds)
        return shown_reply(intent)
