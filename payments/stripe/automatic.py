"""Top-ups that nobody asks for: when the balance falls below a threshold, paid with the saved card.

Whether one is due is judged from the books alone. The n-th of an account has an id of its own, which is n, and it is
asked for only when those before it are over: so however many processes look at once, they ask for the same one.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec
import structlog

from accounts import account_of
from ledger import (
    UNREACHABLE,
    AccountState,
    AutomaticTopup,
    ChangeAutomaticTopup,
    Ledger,
    LedgerError,
    Microcents,
    RequestTopup,
    load_queries,
)
from ledger.errors import IdempotencyMismatch
from ledger.events import Paid
from ledger.limits import month_end
from payments.errors import NoSavedCard, PaymentsError
from payments.metrics import AUTOMATIC_TOPUPS
from payments.smallest_units import major_units, units_in
from payments.stripe.api import PROVIDER
from payments.stripe.cards import Cards, SavedCard
from payments.stripe.checkouts import units_between
from payments.stripe.collecting import AUTOMATIC, CardCollector
from payments.topup_ids import topup_id_of

#: After so many declines in a row, each counted from when its top-up was asked for; after one more, there is none until
#: the card or the setting is changed. Card networks fine those who try a declined card on and on.
PAUSES = (timedelta(hours=1), timedelta(hours=6), timedelta(hours=24))
#: How often a top-up in flight is asked for: after a quarter of its age, at most. Its webhook comes at once.
LONGEST_PAUSE = timedelta(hours=1)
#: Accounts that one process looks after at once.
AT_ONCE = 10

#: ``off`` is without a setting.
Status = Literal["ready", "in_flight", "off", "no_card", "paused", "backing_off", "cap_reached"]

_queries = load_queries("payments.stripe")
_log = structlog.get_logger(__name__)


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What the books say of an account's automatic top-ups."""

    over: int
    in_flight: str | None  # its id
    paid_this_month: Microcents  # by those asked for in this calendar month, UTC
    declines: int  # in a row, with this card and setting
    last_declined_at: datetime | None  # when the last of them was asked for


class AutomaticState(msgspec.Struct, frozen=True, kw_only=True):
    """The setting of an account, and what it leads to now."""

    account: AccountState
    standing: Standing
    status: Status
    next_try_at: datetime | None  # when it is ready again by itself


def judged(
    setting: AutomaticTopup | None, standing: Standing, card: SavedCard | None, now: datetime
) -> tuple[Status, datetime | None]:
    """Whether another one may be asked for, and if not, when it may be."""
    if standing.in_flight is not None:
        return "in_flight", None
    if setting is None:
        return "off", None
    if card is None:
        return "no_card", None
    if standing.declines > len(PAUSES):
        return "paused", None
    if standing.last_declined_at is not None:
        again_at = standing.last_declined_at + PAUSES[standing.declines - 1]
        if now < again_at:
            return "backing_off", again_at
    if standing.paid_this_month + setting.amount > setting.monthly_cap:
        return "cap_reached", month_end(now)
    return "ready", None


class AutomaticTopups:
    """One per process. Any number of processes may look after the same accounts."""

    def __init__(
        self,
        ledger: Ledger,
        cards: Cards,
        collector: CardCollector,
        clock: Callable[[], datetime],
        *,
        minimum: Microcents,
        maximum: Microcents,
    ) -> None:
        self._ledger = ledger
        self._cards = cards
        self._collector = collector
        self._clock = clock
        self._minimum = minimum
        self._maximum = maximum
        self._next_looks: dict[str, datetime] = {}  # by the id of a top-up in flight
        self._known_to_pause: set[str] = set()

    async def change(
        self, account_id: str, setting: AutomaticTopup | None, *, changed_by: str, idempotency_key: str
    ) -> None:
        """Top the account up in this way from now on; None: not any more. What is in flight may still be paid.

        Raises AmountRefused, NoSavedCard; accounts.AccountNotFound; the ledger's InvalidAmount, IdempotencyMismatch and
        LedgerUnavailable.
        """
        account = await account_of(self._ledger, account_id)
        if setting is not None:
            units_between(setting.amount, account.currency, smallest=self._minimum, largest=self._maximum)
            if await self._cards.of_account(account_id) is None:
                raise NoSavedCard
        await self._ledger.submit(
            ChangeAutomaticTopup(
                stream_id=account_id,
                automatic_topup=setting,
                changed_by=changed_by,
                idempotency_key=idempotency_key,
            )
        )

    async def state_of(self, account_id: str) -> AutomaticState:
        """Raises accounts.AccountNotFound and one of ledger.UNREACHABLE.

        The balance is read last: so it has in it what those top-ups brought that are over.
        """
        now = self._clock()
        card = await self._cards.of_account(account_id)
        standing = await self._standing(account_id, card, now)
        account = await account_of(self._ledger, account_id)
        status, next_try_at = judged(account.automatic_topup, standing, card, now)
        return AutomaticState(account=account, standing=standing, status=status, next_try_at=next_try_at)

    async def run(self) -> None:
        """Look after every account that may need it, once. Raises one of ledger.UNREACHABLE."""
        shards = list(range(self._ledger.shards))
        in_flight = [
            row["account_id"] for row in await self._ledger.pool.fetch(_queries["automatic_in_flight"], shards)
        ]
        needy = {account.account_id for account in await self._ledger.accounts_to_top_up()}
        limit = asyncio.Semaphore(AT_ONCE)
        # In the order of a set, which is another one in each process: so they are not always at the same account.
        await asyncio.gather(*[self._look_after(account_id, limit) for account_id in needy.union(in_flight)])

    async def top_up(self, account_id: str) -> None:
        """Ask for the next top-up of the account if it is due, and bring what is in flight as far as it goes.

        Raises what ``CardCollector.collect`` does.
        """
        state = await self.state_of(account_id)
        self._note_pause(state)
        setting, topup_id = state.account.automatic_topup, state.standing.in_flight
        if state.status == "ready" and setting is not None and state.account.available < setting.threshold:
            topup_id = await self._ask(state.account, setting.amount, nth=state.standing.over + 1)
        if topup_id is not None:
            await self._collect(account_id, topup_id)

    async def _look_after(self, account_id: str, limit: asyncio.Semaphore) -> None:
        async with limit:
            try:
                await self.top_up(account_id)
            except (*UNREACHABLE, LedgerError, PaymentsError) as error:
                _log.warning("automatic_topup.postponed", account_id=account_id, error=str(error))
            except Exception:  # of one account; the others are looked after
                _log.exception("automatic_topup.stuck", account_id=account_id)

    async def _ask(self, account: AccountState, amount: Microcents, *, nth: int) -> str:
        """Ask for the n-th one of the account; its id. A client's own key has no spaces."""
        topup_id = topup_id_of(account.account_id, f"automatic top-up {nth}")
        asked = Paid(account.currency, major_units(units_in(amount, account.currency), account.currency))
        command = RequestTopup(
            stream_id=account.account_id,
            topup_id=topup_id,
            provider=PROVIDER,
            amount_microcents=amount,
            asked=asked,
            requested_by=AUTOMATIC,
            idempotency_key=topup_id,
        )
        try:
            committed = await self._ledger.submit(command)
        except IdempotencyMismatch:  # somebody else asked, with the amount of the setting before
            return topup_id
        if not committed.replayed:
            AUTOMATIC_TOPUPS.labels("requested").inc()
            _log.info("automatic_topup.requested", account_id=account.account_id, topup_id=topup_id)
        return topup_id

    async def _collect(self, account_id: str, topup_id: str) -> None:
        """Unless it was looked at a moment ago, for its age."""
        now = self._clock()
        if now < self._next_looks.get(topup_id, now):
            return
        topup = await self._ledger.topup(account_id, topup_id)
        assert topup is not None  # its request is committed
        self._next_looks = {each: at for each, at in self._next_looks.items() if at + LONGEST_PAUSE > now}
        self._next_looks[topup_id] = now + min((now - topup.requested_at) // 4, LONGEST_PAUSE)
        await self._collector.collect(topup)

    async def _standing(self, account_id: str, card: SavedCard | None, now: datetime) -> Standing:
        row = await self._ledger.pool.fetchrow(
            _queries["automatic_standing"],
            list(range(self._ledger.shards)),
            account_id,
            now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0),
            None if card is None else card.saved_at,
        )
        assert row is not None  # it counts
        return Standing(**row)

    def _note_pause(self, state: AutomaticState) -> None:
        """Say once that somebody has to do something."""
        account_id = state.account.account_id
        if state.status != "paused":
            self._known_to_pause.discard(account_id)
        elif account_id not in self._known_to_pause:
            self._known_to_pause.add(account_id)
            AUTOMATIC_TOPUPS.labels("paused").inc()
            _log.warning("automatic_topup.paused", account_id=account_id, declines=state.standing.declines)
