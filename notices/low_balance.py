"""/v1/notices/low_balance: below which balance an account wants to be told.

The posted balance is meant, not what is available of it: holds come and go with every request, and are mostly far above
what they are settled to, so that an account with money would be told again and again that it has none.
"""

import msgspec
from aiohttp import web

from ledger import Ledger, Microcents, load_queries
from ledger.reading import shard_of
from notices.permission import Permission
from wire import ApiError, Cents, Route, cents_of, json_reply, microcents_of, read_json

_queries = load_queries("notices")


class LowBalanceBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    threshold_cents: Cents | None  # null: do not tell


class LowBalanceAnswer(msgspec.Struct, kw_only=True):
    threshold_cents: Cents | None


class LowBalanceRoutes:
    """The handlers of /v1/notices/low_balance."""

    def __init__(self, ledger: Ledger, permission: Permission) -> None:
        self._ledger = ledger
        self._permission = permission

    def routes(self) -> list[Route]:
        return [
            Route(
                method="GET",
                path="/v1/notices/low_balance",
                handler=self.get_low_balance_notice,
                summary="Below which posted balance the account is told",
                tag="notices",
                answer=LowBalanceAnswer,
                errors=("forbidden", "ledger_unavailable"),
            ),
            Route(
                method="PUT",
                path="/v1/notices/low_balance",
                handler=self.set_low_balance_notice,
                summary="Be told when the posted balance falls below this, once each time that it does",
                tag="notices",
                body=LowBalanceBody,
                answer=LowBalanceAnswer,
                errors=("forbidden", "ledger_unavailable"),
            ),
        ]

    async def get_low_balance_notice(self, request: web.Request) -> web.Response:
        account_id = await self._permission.to_see(request)
        shard = shard_of(account_id, self._ledger.shards)
        threshold: Microcents | None = await self._ledger.pool.fetchval(_queries["threshold"], shard, account_id)
        return _reply(threshold)

    async def set_low_balance_notice(self, request: web.Request) -> web.Response:
        account_id = await self._permission.to_change(request)
        body = await read_json(request, LowBalanceBody)
        shard = shard_of(account_id, self._ledger.shards)
        if body.threshold_cents is None:
            await self._ledger.pool.execute(_queries["remove_threshold"], shard, account_id)
            return _reply(None)
        threshold = microcents_of(body.threshold_cents, param="threshold_cents")
        if threshold < 0:
            raise ApiError("invalid_request", "a threshold is not below zero", param="threshold_cents")
        await self._ledger.pool.execute(_queries["set_threshold"], shard, account_id, threshold)
        return _reply(threshold)


def _reply(threshold: Microcents | None) -> web.Response:
    return json_reply(LowBalanceAnswer(threshold_cents=None if threshold is None else cents_of(threshold)))
