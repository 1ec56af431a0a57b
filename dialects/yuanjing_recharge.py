"""Yuanjing's recharge: a page at Alipay for an amount in yuan, in Yuanjing's envelope.

The word ``redirct`` is spelt so there, and clients read it.
"""

from decimal import Decimal
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from accounts import Authenticator, require_account
from dialects.yuanjing import enveloped
from payments import AlipayCheckouts, PaymentsNotConfigured, PaymentWished, as_api_errors, idempotency_key_of
from wire import ApiError, Route, read_json


class RechargeBody(msgspec.Struct, kw_only=True):
    provider: Annotated[str, Meta(max_length=100)]  # alipay
    amount: Decimal  # that the customer pays, in yuan
    currency: Annotated[str, Meta(max_length=100)]  # CNY


class RechargeData(msgspec.Struct, kw_only=True):
    redirct: str  # the URL of the page, to be opened in a window of its own


class RechargeAnswer(msgspec.Struct):
    data: RechargeData
    status: str = "ok"


class RechargeHandlers:
    """The handler of the recharge. Without checkouts it is off."""

    def __init__(self, checkouts: AlipayCheckouts | None, authenticator: Authenticator) -> None:
        self._checkouts = checkouts
        self._authenticator = authenticator

    async def recharge(self, request: web.Request) -> web.Response:
        """The page where the amount is paid."""
        return await enveloped(request, self._begun)

    async def _begun(self, request: web.Request) -> RechargeAnswer:
        principal = await self._authenticator.authenticate(request)
        account_id = require_account(principal)
        idempotency_key = idempotency_key_of(request)
        body = await read_json(request, RechargeBody)
        if (body.provider, body.currency) != ("alipay", "CNY"):
            raise ApiError("invalid_request", "a recharge is by the provider alipay, in the currency CNY")
        with as_api_errors():
            if self._checkouts is None:
                raise PaymentsNotConfigured(body.provider)
            checkout = await self._checkouts.begin(
                account_id,
                PaymentWished.of(body.amount),
                requested_by=principal.id,
                idempotency_key=idempotency_key,
            )
        return RechargeAnswer(RechargeData(redirct=checkout.url))


def recharge_routes(checkouts: AlipayCheckouts | None, authenticator: Authenticator) -> list[Route]:
    """The operation of this surface that takes money."""
    return [
        Route(
            method="POST",
            path="/unipay/user_recharge.dspy",
            handler=RechargeHandlers(checkouts, authenticator).recharge,
            summary="A page at Alipay where the customer pays so many yuan",
            tag="yuanjing",
            headers={"Idempotency-Key": "the same again is the same order, and never a second payment"},
            body=RechargeBody,
            answer=RechargeAnswer,
        )
    ]
