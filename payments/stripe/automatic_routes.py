"""/v1/topup/automatic: when the account is topped up without being asked."""

from datetime import datetime
from typing import Literal

import msgspec
from aiohttp import web

from accounts import Authenticator, require_account, require_whole_account
from ledger import AutomaticTopup, Ledger, new_id
from payments.refusals import as_api_errors, configured
from payments.routes import idempotency_key_of
from payments.stripe.api import PROVIDER
from payments.stripe.automatic import AutomaticState, AutomaticTopups
from wire import ApiError, Cents, Route, cents_of, json_reply, microcents_of, read_json


class AutomaticBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Below ``threshold_cents`` of available balance, ``amount_cents`` are taken from the saved card; in a calendar
    month, UTC, never more than ``monthly_cap_cents``."""

    threshold_cents: Cents
    amount_cents: Cents
    monthly_cap_cents: Cents


class AutomaticAnswer(msgspec.Struct, kw_only=True):
    """The setting, and what it leads to now.

    ``status``: ready; in_flight; no_card; backing_off until ``next_try_at``, after a decline; paused, after too many of
    them, until the card or the setting is changed; cap_reached until ``next_try_at``.
    """

    threshold_cents: Cents
    amount_cents: Cents
    monthly_cap_cents: Cents
    paid_this_month_cents: Cents
    status: Literal["ready", "in_flight", "no_card", "paused", "backing_off", "cap_reached"]
    declines: int  # in a row
    next_try_at: datetime | None


class AutomaticRoutes:
    """The handlers of /v1/topup/automatic. Without automatic top-ups they are off."""

    def __init__(self, ledger: Ledger, authenticator: Authenticator, automatic: AutomaticTopups | None) -> None:
        self._ledger = ledger
        self._authenticator = authenticator
        self._configured = automatic

    def routes(self) -> list[Route]:
        return [
            Route(
                method="PUT",
                path="/v1/topup/automatic",
                handler=self.set_automatic_topup,
                summary="Top the account up from the saved card whenever its balance falls below a threshold",
                tag="payments",
                headers={"Idempotency-Key": "the same again changes nothing"},
                body=AutomaticBody,
                answer=AutomaticAnswer,
                errors=(
                    "forbidden",
                    "conflict",
                    "idempotency_mismatch",
                    "payments_not_configured",
                    "ledger_unavailable",
                ),
            ),
            Route(
                method="GET",
                path="/v1/topup/automatic",
                handler=self.show_automatic_topup,
                summary="How the account is topped up automatically, and whether it can be now",
                tag="payments",
                answer=AutomaticAnswer,
                errors=("forbidden", "not_found", "payments_not_configured", "ledger_unavailable"),
            ),
            Route(
                method="DELETE",
                path="/v1/topup/automatic",
                handler=self.stop_automatic_topup,
                summary="No automatic top-ups any more; a payment that is being made may still come",
                tag="payments",
                status=204,
                errors=("forbidden", "payments_not_configured", "ledger_unavailable"),
            ),
        ]

    async def set_automatic_topup(self, request: web.Request) -> web.Response:
        principal = await self._authenticator.authenticate(request)
        account_id = await require_whole_account(principal, self._ledger)
        automatic = self._automatic()
        idempotency_key = idempotency_key_of(request) or new_id("change")
        setting = _setting(await read_json(request, AutomaticBody))
        with as_api_errors():
            await automatic.change(account_id, setting, changed_by=principal.id, idempotency_key=idempotency_key)
        state = await automatic.state_of(account_id)
        if state.account.automatic_topup is None:
            raise ApiError("conflict", "automatic top-ups were turned off after this change")
        return json_reply(_answer(state))

    async def show_automatic_topup(self, request: web.Request) -> web.Response:
        account_id = require_account(await self._authenticator.authenticate(request))
        return json_reply(_answer(await self._automatic().state_of(account_id)))

    async def stop_automatic_topup(self, request: web.Request) -> web.Response:
        principal = await self._authenticator.authenticate(request)
        account_id = await require_whole_account(principal, self._ledger)
        await self._automatic().change(account_id, None, changed_by=principal.id, idempotency_key=new_id("change"))
        return web.Response(status=204)

    def _automatic(self) -> AutomaticTopups:
        return configured(self._configured, PROVIDER)


def _setting(body: AutomaticBody) -> AutomaticTopup:
    """Raises ApiError, naming the field, when it makes no sense."""
    threshold, amount, cap = (
        microcents_of(getattr(body, name), param=name)
        for name in ("threshold_cents", "amount_cents", "monthly_cap_cents")
    )
    if threshold < 0:
        raise ApiError("invalid_request", "a threshold is not below zero", param="threshold_cents")
    if cap < amount:
        raise ApiError(
            "invalid_request", "a monthly cap pays for one automatic top-up at least", param="monthly_cap_cents"
        )
    return AutomaticTopup(threshold=threshold, amount=amount, monthly_cap=cap)


def _answer(state: AutomaticState) -> AutomaticAnswer:
    setting = state.account.automatic_topup
    if setting is None or state.status == "off":
        raise ApiError("not_found", "automatic top-ups are off")
    return AutomaticAnswer(
        threshold_cents=cents_of(setting.threshold),
        amount_cents=cents_of(setting.amount),
        monthly_cap_cents=cents_of(setting.monthly_cap),
        paid_this_month_cents=cents_of(state.standing.paid_this_month),
        status=state.status,
        declines=state.standing.declines,
        next_try_at=state.next_try_at,
    )
