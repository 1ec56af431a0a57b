"""/v1/topup/usdc: where customers send coins to, what was seen of them, and pushes that say that there is something."""

import hashlib
import hmac
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Literal

import msgspec
import structlog
from aiohttp import web
from msgspec import Meta

from accounts import Authenticator, require_account
from payments.errors import WebhookRefused
from payments.metrics import NOTIFICATIONS
from payments.refusals import as_api_errors, configured
from payments.usdc.amounts import coins
from payments.usdc.booking import topup_id_of
from payments.usdc.config import PROVIDER, Chain
from payments.usdc.deposits import Deposit, Scan
from payments.usdc.road import UsdcRoad
from wire import ApiError, Route, json_reply, read_body, read_query

#: Of a push; what is in it does not matter.
MAX_PUSH = 1024 * 1024
SIGNATURE_HEADER = "X-Alchemy-Signature"

_log = structlog.get_logger(__name__)


class ChainLine(msgspec.Struct, kw_only=True):
    """One chain. Coins of ``token`` that are sent to ``deposit_address`` on it are the account's."""

    name: str
    chain_id: int
    token: str  # the contract; other tokens are not seen
    deposit_address: str
    required_confirmations: int | None  # None: when the chain calls the block finalized
    finality: Literal["confirmations", "finalized"]
    minimum_usdc: Decimal  # less is kept, and not credited


class AddressAnswer(msgspec.Struct):
    deposit_address: str


class DepositsQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    limit: Annotated[int, Meta(ge=1, le=500)] = 50


class DepositLine(msgspec.Struct, kw_only=True):
    """One deposit. ``status``: pending, credited, failed, reversed, or dust, which is not credited."""

    chain_id: int
    transaction: str
    log_index: int
    deposit_address: str
    usdc: Decimal
    block_number: int
    confirmations: int  # of its block, that included; 0: its block has left the chain
    status: str
    topup_id: str | None  # in the history
    seen_at: datetime


class PushAnswer(msgspec.Struct):
    received: bool


class UsdcRoutes:
    """The handlers of /v1/topup/usdc. Without a road they are off."""

    def __init__(self, authenticator: Authenticator, road: UsdcRoad | None) -> None:
        self._authenticator = authenticator
        self._configured = road

    def routes(self) -> list[Route]:
        return [
            Route(
                method="GET",
                path="/v1/topup/usdc/chains",
                handler=self.list_chains,
                summary="Where this account's deposits go, chain by chain; its address is made on the first call",
                tag="payments",
                answer=list[ChainLine],
                errors=("forbidden", "payments_not_configured", "ledger_unavailable"),
            ),
            Route(
                method="POST",
                path="/v1/topup/usdc/address",
                handler=self.add_address,
                summary="Another address for deposits; the ones before stay valid",
                tag="payments",
                answer=AddressAnswer,
                status=201,
                errors=("forbidden", "conflict", "payments_not_configured", "ledger_unavailable"),
            ),
            Route(
                method="GET",
                path="/v1/topup/usdc/deposits",
                handler=self.list_deposits,
                summary="Deposits that were seen, newest first, with their confirmations",
                tag="payments",
                query=DepositsQuery,
                answer=list[DepositLine],
                errors=("forbidden", "payments_not_configured", "ledger_unavailable"),
            ),
            Route(
                method="POST",
                path="/v1/topup/usdc/webhook/{chain}",
                handler=self.take_push,
                summary="For node providers alone, signed: something happened, so that the chain is looked at now",
                tag="payments",
                auth="public",
                headers={SIGNATURE_HEADER: "hex HMAC-SHA256 of the body, by the chain's secret"},
                answer=PushAnswer,
                errors=("invalid_request", "not_found", "payments_not_configured", "ledger_unavailable"),
            ),
        ]

    async def list_chains(self, request: web.Request) -> web.Response:
        principal = await self._authenticator.authenticate(request)
        account_id = require_account(principal)
        road = self._road()
        address = await road.addresses.of_account(account_id)
        return json_reply([_chain_line(chain, address) for chain in road.config.chains])

    async def add_address(self, request: web.Request) -> web.Response:
        principal = await self._authenticator.authenticate(request)
        account_id = require_account(principal)
        road = self._road()
        with as_api_errors():
            address = await road.addresses.one_more(account_id)
        return json_reply(AddressAnswer(address), status=201)

    async def list_deposits(self, request: web.Request) -> web.Response:
        principal = await self._authenticator.authenticate(request)
        account_id = require_account(principal)
        road = self._road()
        query = read_query(request, DepositsQuery)
        deposits = await road.deposits.of_account(account_id, query.limit)
        scans = await road.deposits.scans()
        return json_reply([_deposit_line(deposit, scans.get(deposit.chain_id)) for deposit in deposits])

    async def take_push(self, request: web.Request) -> web.Response:
        road = self._road()
        chain = road.config.chain(request.match_info["chain"])
        if chain is None:
            raise ApiError("not_found", "there is no such chain")
        secret = configured(chain.webhook_secret, PROVIDER)
        try:
            await _require_signed(request, secret)
        except WebhookRefused as refused:
            NOTIFICATIONS.labels(PROVIDER, refused.reason).inc()
            raise ApiError("invalid_request", str(refused)) from refused
        await road.deposits.wake(chain.chain_id, road.clock())
        NOTIFICATIONS.labels(PROVIDER, "stored").inc()
        _log.info("usdc.woken", chain=chain.name)
        return json_reply(PushAnswer(True))

    def _road(self) -> UsdcRoad:
        return configured(self._configured, PROVIDER)


async def _require_signed(request: web.Request, secret: str) -> None:
    """Raises WebhookRefused unless the body is signed by the secret."""
    try:
        body = await read_body(request, limit=MAX_PUSH)
    except ApiError as error:
        reason = "too_large" if error.code == "payload_too_large" else "unreadable"
        raise WebhookRefused(reason, error.message) from error
    expected = hmac.digest(secret.encode(), body, hashlib.sha256).hex()
    given = request.headers.get(SIGNATURE_HEADER, "")
    if not hmac.compare_digest(expected.encode(), given.encode(errors="replace")):
        raise WebhookRefused("forged", "the signature is missing, or not of this body by the chain's secret")


def _chain_line(chain: Chain, address: str) -> ChainLine:
    return ChainLine(
        name=chain.name,
        chain_id=chain.chain_id,
        token=chain.token,
        deposit_address=address,
        required_confirmations=chain.confirmations,
        finality="finalized" if chain.confirmations is None else "confirmations",
        minimum_usdc=coins(chain.minimum_units),
    )


def _deposit_line(deposit: Deposit, scan: Scan | None) -> DepositLine:
    head = None if scan is None else scan.head
    transfer = deposit.transfer
    is_there = deposit.gone_at_block is None and head is not None
    return DepositLine(
        chain_id=deposit.chain_id,
        transaction=transfer.tx_hash,
        log_index=transfer.log_index,
        deposit_address=transfer.address,
        usdc=coins(transfer.units),
        block_number=transfer.block_number,
        confirmations=max(0, head - transfer.block_number + 1) if is_there and head is not None else 0,
        status="pending" if deposit.status == "seen" else deposit.status,
        topup_id=None if deposit.status in ("seen", "dust") else topup_id_of(deposit),
        seen_at=deposit.seen_at,
    )
