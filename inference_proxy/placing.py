"""From a request to its hold: what it may cost at most is worked out, and set aside."""

from collections.abc import Callable
from datetime import datetime

import msgspec

from inference_proxy.backends import BackendPool, no_backend
from inference_proxy.holds import SLACK_S, Endings, RequestHold
from inference_proxy.models import ModelCatalog
from inference_proxy.orders import MAX_COST, Order
from inference_proxy.prepared import Prepared
from inference_proxy.prices import PriceFeed, RequestPrice
from inference_proxy.progress import Progress
from inference_proxy.refusals import translate
from inference_proxy.slices import first_slice
from inference_proxy.terms import Terms, TermsOfAccounts
from inference_proxy.write_ahead import WriteAheadFile
from ledger import Ledger, Microcents, PlaceHold, units_text
from ledger.errors import BudgetExceeded, InsufficientFunds, KeyUnknown, PlanOutdated
from ledger.state import NO_CURRENCY
from pricing import UsageBox, UsageError
from wire import ApiError, cents_of

#: How often a request that takes what it can get is fitted to a balance that others change meanwhile.
MAX_FITTINGS = 3
#: For how many plans a request is priced when its account is moved from one to the next meanwhile. Each is a decision
#: of an operator, so that a second one is rare; more of them mean that two of somebody's programs disagree.
MAX_PLANS = 5


class Placed(msgspec.Struct, frozen=True):
    """A hold, and the request as it is paid by it."""

    hold: RequestHold
    prepared: Prepared
    clamped_to: int | None = None  # the ``max_tokens`` that the money is enough for, where that is less than asked


class Placer:
    """Places the holds of one process."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        models: ModelCatalog,
        prices: PriceFeed,
        terms: TermsOfAccounts,
        backends: BackendPool,
        write_ahead: WriteAheadFile,
        endings: Endings,
        worker_id: int,
        clock: Callable[[], datetime],
    ) -> None:
        self._ledger = ledger
        self._models = models
        self._prices = prices
        self._terms = terms
        self._backends = backends
        self._write_ahead = write_ahead
        self._endings = endings
        self._worker_id = worker_id
        self._clock = clock

    async def place(self, order: Order, prepared: Prepared, progress: Progress) -> Placed:
        """Set aside what the request can cost, or a first slice of that. Raises a refusal: then there is no hold."""
        terms = await self._terms.of(order.account_id)
        for _ in range(MAX_PLANS - 1):
            try:
                return await self._place_on(terms, order, prepared, progress)
            except PlanOutdated as error:  # priced again for the plan that counts
                terms = self._terms.changed(order.account_id, terms, plan=error.plan)
        return await self._place_on(terms, order, prepared, progress)

    async def _place_on(self, terms: Terms, order: Order, prepared: Prepared, progress: Progress) -> Placed:
        price = self._prices.of_request(order.operation.name, prepared.model, order.account_id, terms, at=self._clock())
        if not self._backends.serves(prepared.model):
            raise no_backend(prepared.model)
        try:
            if order.max_cost is not None:
                return await self._place_fitted(order.max_cost, terms, order, prepared, price, progress)
            return Placed(await self._hold(terms, order, prepared, price, progress), prepared)
        except (InsufficientFunds, BudgetExceeded) as error:
            refusal = translate(error, affordable=_can_afford(prepared, price, _left(error)))
            assert refusal is not None  # both are in the table
            raise refusal from error
        except KeyUnknown as error:
            raise ApiError("unauthorized", "the key is not valid") from error

    async def _place_fitted(
        self, most: Microcents, terms: Terms, order: Order, prepared: Prepared, price: RequestPrice, progress: Progress
    ) -> Placed:
        """Place it with its answer as short as ``most`` and, where all of it must be held at once, the balance want."""
        tokens = _affordable(prepared, price, most)
        if tokens == 0:
            raise _too_dear(prepared, price, most, terms.currency)
        fittings = 0
        while True:
            fitted = order.operation.prepare(order.body, self._models, at_most=tokens)
            try:
                hold = await self._hold(terms, order, fitted, price, progress)
            except (InsufficientFunds, BudgetExceeded) as error:
                fittings += 1
                tokens = _affordable(fitted, price, _left(error))
                if fitted.stream or tokens == 0 or fittings == MAX_FITTINGS:
                    raise
            else:
                is_clamped = fitted.max_output_tokens != prepared.max_output_tokens
                return Placed(hold, fitted, fitted.max_output_tokens if is_clamped else None)

    async def _hold(
        self, terms: Terms, order: Order, prepared: Prepared, price: RequestPrice, progress: Progress
    ) -> RequestHold:
        most = price.bound(prepared.box)  # also finds what the program would refuse later
        first = first_slice(prepared)
        command = PlaceHold(
            stream_id=order.account_id,
            hold_id=order.hold_id,
            amount_microcents=most if first == prepared.output_limit else price.bound(prepared.box_within(first)),
            operation=order.operation.name,
            model=prepared.model,
            price=price.priced.ref,
            worker_id=self._worker_id,
            lifetime_s=order.operation.limit_s + SLACK_S,
            key_id=order.key_id,
            request_id=order.request_id,
            plan=terms.plan,
            exchange_rate=price.priced.exchange_rate,
            retry_count=order.retry_count,
        )
        is_repeatable = order.idempotency_key is not None
        hold = RequestHold(self._ledger, command, price, progress, self._write_ahead, is_repeatable=is_repeatable)
        try:
            await hold.place()
        finally:
            if hold.placed is None and hold.needs_ending:  # nobody knows whether it is there
                self._endings.take_over(hold, hold.finish)
        return hold


def _left(error: InsufficientFunds | BudgetExceeded) -> Microcents:
    if isinstance(error, InsufficientFunds):
        return error.available
    return Microcents(error.limit - error.spent - error.held)


def _affordable(prepared: Prepared, price: RequestPrice, left: Microcents) -> int:
    """How many tokens of each answer this much money is sure to pay for; 0 where it does not pay for one."""
    limit = prepared.max_output_tokens or 0
    if _fits(price, prepared.box, left):
        return limit
    low, high = 0, limit  # low fits, or is 0; high does not fit
    while low + 1 < high:
        middle = (low + high) // 2
        if _fits(price, prepared.box_within(middle * prepared.answers), left):
            low = middle
        else:
            high = middle
    return low


def _fits(price: RequestPrice, box: UsageBox, left: Microcents) -> bool:
    try:
        return price.bound(box) <= left
    except UsageError:  # a shorter answer can be one that the program refuses
        return False


def _can_afford(prepared: Prepared, price: RequestPrice, left: Microcents) -> str:
    """In the words that clients look for."""
    if prepared.max_output_tokens is None:
        return ""
    tokens = _affordable(prepared, price, left)
    return f". You requested up to {prepared.max_output_tokens} tokens, but can only afford {tokens}."


def _too_dear(prepared: Prepared, price: RequestPrice, most: Microcents, currency: str | None) -> ApiError:
    needed = price.bound(prepared.box_within(prepared.answers))
    return ApiError(
        "payment_required",
        f"an answer of one token can cost up to {units_text(needed, currency or NO_CURRENCY)}, more than the "
        f"{units_text(most, currency or NO_CURRENCY)} that the request may",
        param=MAX_COST,
        headers={"x-should-retry": "false"},
        fields={"reason": "max_cost", "needed_cents": cents_of(needed), "limit_cents": cents_of(most)},
    )
