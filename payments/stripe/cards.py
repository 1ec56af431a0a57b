"""The card that a customer saves at Stripe, for top-ups that nobody is there to pay for.

A card is kept because Stripe says that it was entered on a page of ours and is still saved; of two the one that was
entered later. Events of it may come late, twice and in any order, and after the card was forgotten.
"""

from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import structlog

from accounts import account_of
from ledger import Ledger, load_queries
from payments.errors import Break
from payments.outcomes import Outcome
from payments.stripe.api import ACCOUNT_METADATA
from payments.stripe.card_api import CardApi, CardDetails, PaymentMethod, SetupSession

_queries = load_queries("payments.stripe")
_log = structlog.get_logger(__name__)


class SavedCard(msgspec.Struct, frozen=True, kw_only=True):
    """What we know of the one card of an account."""

    customer_id: str
    payment_method_id: str
    brand: str
    last4: str
    exp_month: int
    exp_year: int
    saved_at: datetime


class Cards:
    """Pages on which cards are saved, and what was saved. When Postgres is away: one of ledger.UNREACHABLE."""

    def __init__(self, ledger: Ledger, api: CardApi, clock: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._api = api
        self._clock = clock

    async def begin(self, account_id: str) -> SetupSession:
        """A page where the customer saves a card, instead of the one before.

        Raises ProviderUnavailable, ProviderRefused, accounts.AccountNotFound.
        """
        await account_of(self._ledger, account_id)
        customer_id = await self._customer_of(account_id)
        if customer_id is None:
            made = await self._api.create_customer(account_id)
            await self._ledger.pool.execute(_queries["add_customer"], account_id, made.id)
            customer_id = await self._customer_of(account_id) or made.id
        return await self._api.create_session(account_id, customer_id)

    async def of_account(self, account_id: str) -> SavedCard | None:
        row = await self._ledger.pool.fetchrow(_queries["saved_card"], account_id)
        return None if row is None else SavedCard(**row)

    async def forget(self, account_id: str) -> None:
        """Have no card of the account any more, neither here nor at Stripe; without one, nothing happens.

        Raises ProviderUnavailable, ProviderRefused: then some may be saved still, and the same again goes on.
        """
        customer_id = await self._customer_of(account_id)
        if customer_id is None:
            return
        for method in await self._api.cards_of(customer_id):
            await self._api.detach(method.id)
        await self._ledger.pool.execute(_queries["forget_card"], account_id)
        _log.info("card.forgotten", account_id=account_id)

    async def keep(self, session: SetupSession) -> Outcome:
        """Keep the card that was entered on the page. Raises Break, ProviderUnavailable and ProviderRefused."""
        account_id = session.metadata.get(ACCOUNT_METADATA)
        if account_id is None:
            return Outcome("ignored", "not a page of ours")
        customer_id = await self._customer_of(account_id)
        if customer_id is None or customer_id != session.customer or session.setup_intent is None:
            raise Break("customer", f"{session.id}: account {account_id} has not asked {session.customer} for a card")
        setup = await self._api.setup(session.setup_intent)
        method = setup.payment_method
        if setup.status != "succeeded" or method is None or method.card is None or method.customer != customer_id:
            return Outcome("ignored", f"{session.id}: there is no card, or not any more")
        return await self._keep(account_id, method, method.card)

    async def _keep(self, account_id: str, method: PaymentMethod, card: CardDetails) -> Outcome:
        replaced = await self._ledger.pool.fetchrow(
            _queries["keep_card"],
            account_id,
            method.id,
            *(card.brand, card.last4, card.exp_month, card.exp_year),
            datetime.fromtimestamp(method.created, UTC),  # when it was entered, not when its page was asked for
            self._clock(),
        )
        if replaced is None:
            return Outcome("ignored", f"{method.id}: another card was saved later")
        before = replaced["payment_method_id"]
        if before is not None and before != method.id:
            await self._api.detach(before)
        _log.info("card.saved", account_id=account_id, payment_method_id=method.id)
        return Outcome("processed", f"{method.id}: saved for {account_id}")

    async def _customer_of(self, account_id: str) -> str | None:
        customer_id: str | None = await self._ledger.pool.fetchval(_queries["customer"], account_id)
        return customer_id
