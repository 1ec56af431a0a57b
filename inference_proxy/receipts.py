"""Receipts: everything that the books say about one request, from its hold to the last correction of its charge."""

import re
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from aiohttp import web

from accounts import Authenticator, require_role
from inference_proxy.prices import PriceFeed
from inference_proxy.quotes import InvoiceLine, invoice_lines
from ledger import Ledger, Microcents, PriceRef, StoredEvent
from ledger.events import (
    Charge,
    ChargeRerated,
    HoldDrawn,
    HoldExpired,
    HoldExtended,
    HoldPlaced,
    HoldSettled,
    HoldSettledLate,
    HoldVoided,
)
from pricing import ProgramNotPublished, UsageError
from wire import ApiError, Cents, Route, cents_of, json_reply, read_query

_Settled = HoldSettled | HoldSettledLate
_End = _Settled | HoldVoided | HoldExpired

#: Anything else is no hold of ours, and need not be asked for.
_HOLD_ID = re.compile(r"hold_[0-9A-Za-z_-]{1,59}")


class ReceiptQuery(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    account_id: Annotated[str, msgspec.Meta(pattern="^acct_[0-9A-Za-z_-]{1,59}$")] | None = None  # for operators: whose


class ReceiptCharge(msgspec.Struct, kw_only=True):
    """One charge: the settlement, or a draw. The lines are those of the program that it stands under now, in that
    program's currency; null while this process has not heard of the program."""

    reference: str | None  # of a draw
    at: datetime
    charged_cents: Cents  # after all corrections
    program: str  # id@version
    digest: str
    usage: dict[str, Any]
    currency: str | None = None
    lines: list[InvoiceLine] | None = None


class ReceiptCorrection(msgspec.Struct, kw_only=True):
    reference: str | None
    at: datetime
    before_cents: Cents
    after_cents: Cents
    program: str
    reason: str


class ReceiptEvent(msgspec.Struct, kw_only=True):
    type: str
    position: int
    seq: int
    at: datetime


class Receipt(msgspec.Struct, kw_only=True):
    """Of one request. ``id`` is the hold's, which its answer names in ``x-tollgate-hold-id``."""

    object: str = "receipt"
    id: str
    status: str  # open, settled, voided, expired
    late: bool  # the hold had expired before it was settled
    account_id: str
    key_id: str | None
    request_id: str | None
    operation: str
    model: str
    plan: str | None
    exchange_rate: Decimal | None  # null: the price was in the account's currency
    retry_count: int  # how often the client says that it tried before
    placed_at: datetime
    ended_at: datetime | None
    outcome: str | None  # how the request ended: completed, client_gone, backend_failed …
    backend: str | None
    served: dict[str, Any] | None  # how the request was served, as the gate saw it
    held_cents: Cents  # the most that was set aside
    charged_cents: Cents
    charges: list[ReceiptCharge]
    corrections: list[ReceiptCorrection]
    events: list[ReceiptEvent]


class ReceiptRoutes:
    """The handler of receipts."""

    def __init__(self, ledger: Ledger, prices: PriceFeed, authenticator: Authenticator) -> None:
        self._ledger = ledger
        self._prices = prices
        self._authenticator = authenticator

    def routes(self) -> list[Route]:
        return [
            Route(
                method="GET",
                path="/v1/receipts/{id}",
                handler=self.get_receipt,
                summary="What the books say about one request: its hold, its charge line by line, its corrections",
                tag="usage",
                query=ReceiptQuery,
                answer=Receipt,
                errors=("forbidden", "not_found", "ledger_unavailable"),
            )
        ]

    async def get_receipt(self, request: web.Request) -> web.Response:
        principal = await self._authenticator.authenticate(request)
        account_id = read_query(request, ReceiptQuery).account_id or principal.account_id
        if account_id is None:
            raise ApiError("invalid_request", "say whose receipt it is", param="account_id")
        if account_id != principal.account_id:
            require_role(principal, "finance", "admin")
        hold_id = request.match_info["id"]
        events = await self._ledger.events_of_hold(account_id, hold_id) if _HOLD_ID.fullmatch(hold_id) else []
        if not events:
            raise ApiError("not_found", "there is no such receipt")
        return json_reply(self._receipt(account_id, events))

    def _receipt(self, account_id: str, events: list[StoredEvent]) -> Receipt:
        placed = events[0].event
        assert isinstance(placed, HoldPlaced)  # what else begins a hold
        ends = [each for each in events if isinstance(each.event, _End)]
        end = ends[-1] if ends else None  # the settlement, where it came after the hold had expired
        settled = end.event if end is not None and isinstance(end.event, _Settled) else None
        corrections = [(each, each.event) for each in events if isinstance(each.event, ChargeRerated)]
        charges = [
            self._charge(each, each.event, [event for _, event in corrections if event.charge_seq == each.seq])
            for each in events
            if isinstance(each.event, Charge)
        ]
        return Receipt(
            id=placed.hold_id,
            status="open" if end is None else _tag(end).removeprefix("hold.").removesuffix("_late"),
            late=isinstance(settled, HoldSettledLate),
            account_id=account_id,
            key_id=placed.key_id,
            request_id=placed.request_id,
            operation=placed.operation,
            model=placed.model,
            plan=placed.plan,
            exchange_rate=placed.exchange_rate,
            retry_count=placed.retry_count,
            placed_at=events[0].at,
            ended_at=None if end is None else end.at,
            outcome=None if end is None else _outcome(end.event),
            backend=None if settled is None else settled.backend,
            served=None if end is None else _served(end.event),
            held_cents=cents_of(_held(events)),
            charged_cents=sum((charge.charged_cents for charge in charges), Decimal(0)),
            charges=charges,
            corrections=[
                ReceiptCorrection(
                    reference=event.reference,
                    at=each.at,
                    before_cents=cents_of(event.before_microcents),
                    after_cents=cents_of(event.after_microcents),
                    program=_named(event.price),
                    reason=event.reason,
                )
                for each, event in corrections
            ],
            events=[ReceiptEvent(type=_tag(each), position=each.position, seq=each.seq, at=each.at) for each in events],
        )

    def _charge(self, stored: StoredEvent, charge: Charge, corrections: list[ChargeRerated]) -> ReceiptCharge:
        price = corrections[-1].price if corrections else charge.price
        amount = corrections[-1].after_microcents if corrections else charge.amount_microcents
        receipt = ReceiptCharge(
            reference=charge.reference if isinstance(charge, HoldDrawn) else None,
            at=stored.at,
            charged_cents=cents_of(amount),
            program=_named(price),
            digest=price.digest,
            usage=charge.usage,
        )
        try:
            program = self._prices.book.program(price.program, price.version).program
            receipt.lines = invoice_lines(program.price(charge.usage))
            receipt.currency = program.currency
        except (ProgramNotPublished, UsageError):
            pass  # the books stand by themselves; only the explanation is missing
        return receipt


def _held(events: list[StoredEvent]) -> Microcents:
    added = (each.event.amount_microcents for each in events if isinstance(each.event, HoldPlaced | HoldExtended))
    return Microcents(sum(added))


def _outcome(event: Any) -> str:
    return str(event.outcome if isinstance(event, _Settled) else event.reason)


def _served(event: Any) -> dict[str, Any] | None:
    return None if isinstance(event, HoldExpired) else event.served


def _tag(stored: StoredEvent) -> str:
    return str(stored.event.__struct_config__.tag)


def _named(price: PriceRef) -> str:
    return f"{price.program}@{price.version}"
