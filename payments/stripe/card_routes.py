"""/v1/topup/stripe/card: the card that pays when nobody is there."""

from datetime import datetime

import msgspec
from aiohttp import web

from accounts import Authenticator, require_account, require_whole_account
from ledger import Ledger
from payments.refusals import as_api_errors, configured
from payments.stripe.api import PROVIDER
from payments.stripe.cards import Cards
from wire import ApiError, Route, json_reply


class CardPageAnswer(msgspec.Struct, kw_only=True):
    """Send the customer to ``checkout_url``. The card is saved when GET shows it."""

    checkout_url: str
    session_id: str


class CardAnswer(msgspec.Struct, kw_only=True):
    """What may be shown of a card."""

    brand: str
    last4: str
    exp_month: int
    exp_year: int
    saved_at: datetime


class CardRoutes:
    """The handlers of /v1/topup/stripe/card. Without cards they are off."""

    def __init__(self, ledger: Ledger, authenticator: Authenticator, cards: Cards | None) -> None:
        self._ledger = ledger
        self._authenticator = authenticator
        self._configured = cards

    def routes(self) -> list[Route]:
        asking_stripe = (
            "forbidden",
            "payments_not_configured",
            "payment_provider_error",
            "payment_provider_unavailable",
            "ledger_unavailable",
        )
        return [
            Route(
                method="POST",
                path="/v1/topup/stripe/card",
                handler=self.begin_saving_card,
                summary="A page at Stripe where the customer saves a card, instead of the one before; nothing is paid",
                tag="payments",
                answer=CardPageAnswer,
                status=201,
                errors=asking_stripe,
            ),
            Route(
                method="GET",
                path="/v1/topup/stripe/card",
                handler=self.show_card,
                summary="The card that is saved",
                tag="payments",
                answer=CardAnswer,
                errors=("forbidden", "not_found", "payments_not_configured", "ledger_unavailable"),
            ),
            Route(
                method="DELETE",
                path="/v1/topup/stripe/card",
                handler=self.forget_card,
                summary="Forget the saved card, here and at Stripe; no automatic top-up is paid with it any more",
                tag="payments",
                status=204,
                errors=asking_stripe,
            ),
        ]

    async def begin_saving_card(self, request: web.Request) -> web.Response:
        account_id = await require_whole_account(await self._authenticator.authenticate(request), self._ledger)
        with as_api_errors(account_id=account_id):
            page = await self._cards().begin(account_id)
        if page.url is None:
            raise ApiError("payment_provider_error", "Stripe made a page that nobody can open")
        return json_reply(CardPageAnswer(checkout_url=page.url, session_id=page.id), status=201)

    async def show_card(self, request: web.Request) -> web.Response:
        account_id = require_account(await self._authenticator.authenticate(request))
        card = await self._cards().of_account(account_id)
        if card is None:
            raise ApiError("not_found", "no card is saved")
        return json_reply(
            CardAnswer(
                brand=card.brand,
                last4=card.last4,
                exp_month=card.exp_month,
                exp_year=card.exp_year,
                saved_at=card.saved_at,
            )
        )

    async def forget_card(self, request: web.Request) -> web.Response:
        account_id = await require_whole_account(await self._authenticator.authenticate(request), self._ledger)
        with as_api_errors(account_id=account_id):
            await self._cards().forget(account_id)
        return web.Response(status=204)

    def _cards(self) -> Cards:
        return configured(self._configured, PROVIDER)
