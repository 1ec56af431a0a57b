"""Quotes: what a usage costs, and what a request would have set aside, without a hold and without a backend."""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from itertools import product
from typing import Any

import msgspec

from inference_proxy.models import ModelCatalog
from inference_proxy.operations import OPERATIONS, Operation
from inference_proxy.prices import PriceFeed, RequestPrice
from inference_proxy.terms import Terms, TermsOfAccounts
from ledger import Microcents
from pricing import ModelNotPriced, NoExchangeRate, Price, Span, Usage, UsageBox, UsageError
from pricing.circumstances import CIRCUMSTANCES
from wire import ApiError, Cents, cents_of


class InvoiceLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the invoice. Quantity and unit price are exact decimals as text, the price in the major unit of the
    program's currency."""

    name: str
    quantity: str
    unit_price: str
    amount_cents: Cents


class QuotedPrice(msgspec.Struct, frozen=True, kw_only=True):
    """One price of a usage: in the program's currency, line by line, and what that is in the account's."""

    program: str  # id@version
    digest: str
    currency: str
    lines: list[InvoiceLine]
    amount_cents: Cents  # the sum of the lines
    exchange_rate: Decimal | None  # null: the program is in the account's currency
    charged_cents: Cents


class Quote(msgspec.Struct, frozen=True, kw_only=True):
    """For a request, ``usage`` is the dearest at the ends of what it could have, and the prices are of that. Between
    them a tier can make a shorter answer dearer; ``max_hold_cents`` covers that too."""

    object: str = "quote"
    model: str
    operation: str
    as_of: datetime
    usage: dict[str, Any]
    currency: str  # of the account
    list_price: QuotedPrice | None  # null: the list has no price for this usage
    price: QuotedPrice  # this customer's
    max_hold_cents: Cents  # the most that would be set aside


class Quoter:
    """Quotes for one process."""

    def __init__(
        self, prices: PriceFeed, terms: TermsOfAccounts, models: ModelCatalog, clock: Callable[[], datetime]
    ) -> None:
        self._prices = prices
        self._terms = terms
        self._models = models
        self._clock = clock

    async def is_sold_to(self, account_id: str | None, *, program: str, version: int) -> bool:
        """Whether the account pays, or paid, the prices of a version, or could as one of the customers of the list."""
        terms = await self._terms_of(account_id)
        return self._prices.book.is_sold_to(
            account_id, plan=terms.plan, program=program, version=version, at=self._clock()
        )

    async def of_request(
        self, operation: Operation, body: bytes, account_id: str | None, *, at: datetime | None = None
    ) -> Quote:
        """What the request could cost at most. Raises ApiError as the request itself would, and pricing errors."""
        prepared = operation.prepare(body, self._models)
        return await self._quote(operation.name, prepared.model, prepared.box, account_id, at)

    async def of_usage(
        self, operation: str, model: str, usage: Usage, account_id: str | None, *, at: datetime | None = None
    ) -> Quote:
        """What exactly the usage costs.

        Raises UsageError for one that cannot be priced, ModelNotPriced, and ApiError for an operation that neither the
        gate nor the book knows.

        When it is and what plan the account is on is not for the usage to say.
        """
        if all(operation != known.name for known in OPERATIONS) and not self._prices.book.has_operation(operation):
            raise ApiError("invalid_request", f"there is no operation {operation[:100]!r}", param="operation")
        counted = {key: value for key, value in usage.items() if key not in CIRCUMSTANCES}
        return await self._quote(operation, model, counted, account_id, at)

    async def _quote(
        self, operation: str, model: str, box: UsageBox, account_id: str | None, at: datetime | None
    ) -> Quote:
        at = at or self._clock()
        terms = await self._terms_of(account_id)
        own = self._prices.of_request(operation, model, account_id, terms, at=at)
        listed = self._listed(operation, model, terms, at)
        keys = {*own.priced.program.keys, *(listed.priced.program.keys if listed is not None else ())}
        usage = _dearest(own, {key: value for key, value in box.items() if not _is_open(value) or key in keys})
        return Quote(
            model=model,
            operation=operation,
            as_of=at,
            usage=own.usage(usage),
            currency=terms.currency or own.priced.program.currency,
            list_price=_quoted_if_priced(listed, usage),
            price=_quoted(own, usage),
            max_hold_cents=cents_of(own.bound(box)),
        )

    async def _terms_of(self, account_id: str | None) -> Terms:
        return Terms(None, None) if account_id is None else await self._terms.now(account_id)

    def _listed(self, operation: str, model: str, terms: Terms, at: datetime) -> RequestPrice | None:
        try:
            return self._prices.of_request(operation, model, None, Terms(terms.currency, None), at=at)
        except (ModelNotPriced, NoExchangeRate):  # sold to this customer only
            return None


def invoice_lines(price: Price) -> list[InvoiceLine]:
    """The lines of a price, as they are written on the wire."""
    return [
        InvoiceLine(
            name=line.name,
            quantity=line.quantity,
            unit_price=line.unit_price,
            amount_cents=cents_of(line.amount_microcents),
        )
        for line in price.lines
    ]


def _quoted_if_priced(request_price: RequestPrice | None, usage: dict[str, Any]) -> QuotedPrice | None:
    try:
        return None if request_price is None else _quoted(request_price, usage)
    except UsageError:
        return None


def _quoted(request_price: RequestPrice, usage: dict[str, Any]) -> QuotedPrice:
    priced = request_price.priced
    price = priced.program.price(request_price.usage(usage))
    return QuotedPrice(
        program=f"{priced.ref.program}@{priced.ref.version}",
        digest=priced.ref.digest,
        currency=priced.program.currency,
        lines=invoice_lines(price),
        amount_cents=cents_of(price.total_microcents),
        exchange_rate=priced.exchange_rate,
        charged_cents=cents_of(priced.converted(price.total_microcents)),
    )


def _dearest(price: RequestPrice, box: UsageBox) -> dict[str, Any]:
    """The corner of the box that costs the most: of each span one of its ends, of each set one of its values."""
    dearest: tuple[Microcents, dict[str, Any]] | None = None
    refusal = UsageError("usage", "has no key")
    for corner in product(*map(_ends, box.values())):
        usage: dict[str, Any] = dict(zip(box, corner, strict=True))
        try:
            amount = price.priced.charge(price.usage(usage))
        except UsageError as error:  # such as more cached tokens than tokens
            refusal = error
        else:
            if dearest is None or amount > dearest[0]:
                dearest = amount, usage
    if dearest is None:
        raise refusal
    return dearest[1]


def _is_open(value: Any) -> bool:
    return isinstance(value, Span | frozenset)


def _ends(value: Any) -> list[Any]:
    match value:
        case Span():
            return [value.high, value.low]
        case frozenset():
            return sorted(value)
        case _:
            return [value]
