"""The routes: Stripe's own under ``/v1``, the page where a session is paid, and what a test may do."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from aiohttp import web

from simulated_stripe.balance_routes import BalanceRoutes
from simulated_stripe.card_routes import CardRoutes, Settlement
from simulated_stripe.faults import FaultBoard, Faults
from simulated_stripe.forms import parse_form, whole_number
from simulated_stripe.objects import Books, Object, StripeRefusal
from simulated_stripe.replies import json_reply, page_reply, read, refusal_reply, shown_reply
from simulated_stripe.webhooks import Courier, Endpoint, signature

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_CARD_PAGE: Final = (
    "<form method=post><input name=number value='4242 4242 4242 4242'><button>Save the card</button></form>"
)


class Payment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a session is paid; all defaults together are a card that pays what was asked for."""

    later: bool = False
    amount: int | None = None
    currency: str | None = None


class Disputed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    amount: int | None = None
    inquiry: bool = False


class Closed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    status: str


class SimulatedStripe:
    """One account at Stripe, in memory."""

    def __init__(self, api_key: str) -> None:
        self.courier = Courier()
        self.faults = FaultBoard()
        self.books = Books(self.courier.send)
        self.cards = CardRoutes(self.books)
        self.balance = BalanceRoutes(self.books)
        self._api_key = api_key
        self._answers: dict[str, tuple[bytes, int, bytes]] = {}  # by Idempotency-Key: of which request, what was said
        self.requests: list[dict[str, Any]] = []
        self.after_request: Callable[[str], None] = lambda path: None  # is told the path of each that was carried out

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._as_stripe_would])
        app.router.add_post("/v1/checkout/sessions", self.create_session)
        app.router.add_get("/v1/checkout/sessions/{id}", self.retrieve("checkout.session"))
        app.router.add_post("/v1/checkout/sessions/{id}/expire", self.expire_session)
        app.router.add_get("/v1/payment_intents/{id}", self.retrieve("payment_intent"))
        app.router.add_get("/v1/payment_methods/{id}", self.retrieve("payment_method"))
        app.router.add_get("/v1/charges/{id}", self.retrieve("charge"))
        app.router.add_post("/v1/refunds", self.create_refund)
        app.router.add_get("/v1/refunds/{id}", self.retrieve("refund"))
        app.router.add_get("/v1/refunds", self.list_all("refund", "charge", "payment_intent"))
        app.router.add_get("/v1/disputes/{id}", self.retrieve("dispute"))
        app.router.add_get("/v1/disputes", self.list_all("dispute", "charge", "payment_intent"))
        app.router.add_get("/v1/balance_transactions/{id}", self.retrieve("balance_transaction"))
        app.router.add_get("/v1/payouts/{id}", self.retrieve("payout"))
        app.router.add_get("/v1/payouts", self.list_all("payout", "status"))
        app.router.add_get("/v1/events", self.list_events)
        app.router.add_get("/pay/{id}", self.show_page)
        app.router.add_post("/pay/{id}", self.pay_on_page)
        app.router.add_post("/_simulator/sessions/{id}/pay", self.pay)
        app.router.add_post("/_simulator/sessions/{id}/settle", self.settle)
        app.router.add_post("/_simulator/charges/{id}/dispute", self.dispute)
        app.router.add_post("/_simulator/disputes/{id}/close", self.close_dispute)
        app.router.add_post("/_simulator/refunds/{id}/fail", self.fail_refund)
        app.router.add_post("/_simulator/endpoint", self.set_endpoint)
        app.router.add_post("/_simulator/events/{id}/deliver", self.deliver)
        app.router.add_get("/_simulator/events", self.all_events)
        app.router.add_get("/_simulator/attempts", self.list_attempts)
        app.router.add_get("/_simulator/requests", self.list_requests)
        app.router.add_post("/_simulator/faults", self.set_faults)
        self.cards.add_to(app)
        self.balance.add_to(app)
        app.on_cleanup.append(self._close)
        return app

    def forget_keys(self) -> None:
        """As Stripe does after a day: the same Idempotency-Key is a new request."""
        self._answers.clear()

    async def _close(self, app: web.Application) -> None:
        await self.courier.close()

    @web.middleware
    async def _as_stripe_would(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if request.path.startswith("/v1/"):
                return await self._api(request, handler)
            return await handler(request)
        except StripeRefusal as refusal:
            return refusal_reply(refusal)
        except (msgspec.DecodeError, KeyError, ValueError) as error:
            return refusal_reply(StripeRefusal(f"the request makes no sense: {error!r}"))

    async def _api(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        faults = self.faults.for_request(request.path)
        await asyncio.sleep(faults.hang_s)
        if faults.status is not None:
            raise StripeRefusal(faults.message, status=faults.status, kind="api_error")
        if request.headers.get("Authorization") != f"Bearer {self._api_key}":
            raise StripeRefusal("Invalid API Key provided", status=401)
        answer = await self._once(request, handler)
        self.requests.append({"method": request.method, "path": request.path, "status": answer.status})
        self.after_request(request.path)
        await asyncio.sleep(faults.stall_s)
        if faults.lose_answer and request.transport is not None:
            request.transport.abort()
        return answer

    async def _once(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """A POST with an Idempotency-Key is carried out once; the same again is given the first answer."""
        key = request.headers.get("Idempotency-Key")
        if request.method != "POST" or key is None:
            return await handler(request)
        asked = hashlib.sha256(request.path.encode() + b"\0" + await request.read()).digest()
        if key in self._answers:
            first, status, body = self._answers[key]
            if first != asked:
                message = "Keys for idempotent requests can only be used with the same parameters"
                raise StripeRefusal(message, kind="idempotency_error")
            return web.Response(
                body=body, status=status, content_type="application/json", headers={"Idempotent-Replayed": "true"}
            )
        try:
            answer = await handler(request)
        except StripeRefusal as refusal:
            answer = refusal_reply(refusal)
        assert isinstance(answer, web.Response)
        assert isinstance(answer.body, bytes)
        self._answers[key] = (asked, answer.status, answer.body)
        return answer

    # --- Stripe's own

    async def create_session(self, request: web.Request) -> web.Response:
        fields = parse_form(await request.read())
        pages = f"{request.url.origin()}/pay"
        match fields.get("mode"):
            case "payment":
                return shown_reply(self.books.create_session(fields, pages))
            case "setup":
                return shown_reply(self.cards.wallets.create_session(fields, pages))
            case mode:
                raise StripeRefusal(f"sessions of mode {mode} are not simulated")

    async def expire_session(self, request: web.Request) -> web.Response:
        session = self._named(request, "checkout.session")
        self.books.expire_session(session)
        return shown_reply(session)

    async def create_refund(self, request: web.Request) -> web.Response:
        fields = parse_form(await request.read())
        if (charge_id := fields.get("charge")) is None:
            charge_id = self.books.get(fields["payment_intent"], "payment_intent")["latest_charge"]
        charge = self.books.get(charge_id, "charge")
        amount = whole_number(fields, "amount")
        return shown_reply(self.books.refund(charge, amount, fields.get("metadata", {}), fields.get("reason")))

    async def list_events(self, request: web.Request) -> web.Response:
        found = [event for event in reversed(self.books.events) if request.query.get("type") in (None, event["type"])]
        return page_reply(request, found)

    def retrieve(self, kind: str) -> Handler:
        """The handler of one object by its id."""

        async def handler(request: web.Request) -> web.Response:
            return shown_reply(self._named(request, kind))

        return handler

    def list_all(self, kind: str, *filters: str) -> Handler:
        """The handler of the objects of a kind, filtered by equal fields."""

        async def handler(request: web.Request) -> web.Response:
            having = {name: request.query[name] for name in filters if name in request.query}
            return page_reply(request, self.books.all_of(kind, **having))

        return handler

    # --- the customer, the bank and the test

    async def show_page(self, request: web.Request) -> web.Response:
        session = self._named(request, "checkout.session")
        if session["mode"] == "setup":
            return web.Response(text=_CARD_PAGE, content_type="text/html")
        amount = f"{session['amount_total']} (smallest unit) {session['currency']}"
        page = f"<form method=post><p>{session['status']}: {amount}</p><button>Pay</button></form>"
        return web.Response(text=page, content_type="text/html")

    async def pay_on_page(self, request: web.Request) -> web.Response:
        session = self._named(request, "checkout.session")
        if session["mode"] == "setup":
            number = str((await request.post()).get("number", ""))
            self.cards.wallets.complete_session(session, number=number.replace(" ", ""))
        else:
            self.books.pay_session(session)
        raise web.HTTPSeeOther(session["success_url"].replace("{CHECKOUT_SESSION_ID}", session["id"]))

    async def pay(self, request: web.Request) -> web.Response:
        how = await read(request, Payment)
        session = self._named(request, "checkout.session")
        return shown_reply(self.books.pay_session(session, later=how.later, amount=how.amount, currency=how.currency))

    async def settle(self, request: web.Request) -> web.Response:
        session = self._named(request, "checkout.session")
        self.books.settle_session(session, succeeds=(await read(request, Settlement)).succeeds)
        return shown_reply(session)

    async def dispute(self, request: web.Request) -> web.Response:
        how = await read(request, Disputed)
        return shown_reply(self.books.dispute(self._named(request, "charge"), how.amount, inquiry=how.inquiry))

    async def close_dispute(self, request: web.Request) -> web.Response:
        dispute = self._named(request, "dispute")
        self.books.close_dispute(dispute, (await read(request, Closed)).status)
        return shown_reply(dispute)

    async def fail_refund(self, request: web.Request) -> web.Response:
        refund = self._named(request, "refund")
        self.books.fail_refund(refund)
        return shown_reply(refund)

    async def set_endpoint(self, request: web.Request) -> web.Response:
        self.courier.endpoint = await read(request, Endpoint)
        return json_reply({})

    async def deliver(self, request: web.Request) -> web.Response:
        for event in self.books.events:
            if event["id"] == request.match_info["id"]:
                self.courier.send(event, even_if_held=True)
                return json_reply({})
        raise StripeRefusal("No such event", status=404)

    async def all_events(self, request: web.Request) -> web.Response:
        """Every event, oldest first, as the bytes and the signature that it would be delivered with now."""
        secret = self.courier.endpoint.secret if self.courier.endpoint is not None else ""
        bodies = [(event, msgspec.json.encode(event)) for event in self.books.events]
        return json_reply(
            [
                {"type": event["type"], "body": body.decode(), "signature": signature(secret, body, int(time.time()))}
                for event, body in bodies
            ]
        )

    async def list_attempts(self, request: web.Request) -> web.Response:
        return json_reply(self.courier.attempts)

    async def list_requests(self, request: web.Request) -> web.Response:
        return json_reply(self.requests)

    async def set_faults(self, request: web.Request) -> web.Response:
        self.faults.replace(await read(request, Faults))
        return json_reply({})

    def _named(self, request: web.Request, kind: str) -> Object:
        return self.books.get(request.match_info["id"], kind)
