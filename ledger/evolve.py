"""What an event does to the states: state + event → state. Pure, and the only place that knows.

The committer applies it as it appends, a rebuild applies it to the whole log, a check compares the two.
"""

from datetime import datetime
from typing import assert_never

from msgspec.structs import replace

from ledger.errors import LedgerCorrupt
from ledger.events import (
    PRICE_BOOK,
    AccountOpened,
    AutomaticTopup,
    AutomaticTopupChanged,
    BalanceAdjusted,
    ChargeRerated,
    CreditGranted,
    DepositAddressAssigned,
    Event,
    GrantExpired,
    GrantShare,
    HoldDrawn,
    HoldExpired,
    HoldExtended,
    HoldPlaced,
    HoldSettled,
    HoldSettledLate,
    HoldVoided,
    KeyCreated,
    KeyDeleted,
    PlanChanged,
    ProgramAssigned,
    ProgramPublished,
    ProgramRetired,
    RatePublished,
    TopupCredited,
    TopupExpired,
    TopupFailed,
    TopupPending,
    TopupReinstated,
    TopupRequested,
    TopupReversed,
)
from ledger.grants import (
    Grant,
    after_giving_back,
    after_release,
    after_taking,
    due_at,
    with_granted,
    without_lapsed,
)
from ledger.limits import month_of
from ledger.money import ZERO, Microcents
from ledger.providers import (
    BreakResolved,
    PayoutFailed,
    PayoutInitiated,
    PayoutPaid,
    ProcessorFeeCharged,
    is_provider_stream,
)
from ledger.state import NO_CURRENCY, AccountState, HoldState, KeyState, Scope
from ledger.topups import credited_by, topup_after


def evolve(scope: Scope, event: Event, *, stream_id: str, at: datetime) -> Scope:
    """The states after the event. Raises LedgerCorrupt when the event cannot follow from the states before it."""
    account, key, hold = scope.account, scope.key, scope.hold
    if account is None:
        return Scope(_opened(event, stream_id, at))
    account = account.as_of(at)
    match event:
        case HoldPlaced():
            hold = placed_hold(event, stream_id, at)
            return Scope(_moved(account, at, held=hold.held), _key_after_hold(key, hold, event.next_arrival), hold)
        case HoldSettled():
            hold = _ending(hold, event)
            amount = event.amount_microcents
            grants = _after_hold(account, hold, hold.held, event.from_grants)
            after = _moved(account, at, held=-hold.held, spent=amount, grants=grants)
            return Scope(after, _key_moved(key, hold, -hold.held, amount))
        case HoldVoided() | HoldExpired():
            hold = _ending(hold, event)
            after = _moved(account, at, held=-hold.held, grants=_after_hold(account, hold, hold.held))
            return Scope(after, _key_moved(key, hold, -hold.held, 0))
        case HoldSettledLate():
            if hold is not None:
                raise LedgerCorrupt(f"hold {hold.hold_id} is settled late, and is open")
            amount = event.amount_microcents
            after = _moved(account, at, spent=amount, grants=after_taking(account.grants, event.from_grants))
            return Scope(after, _spent(key, month_of(event.placed_at), amount))
        case HoldExtended():
            return _extended(account, key, _open(hold, event.hold_id), event, at)
        case HoldDrawn():
            return _drawn(account, key, _open(hold, event.hold_id), event, at)
        case ChargeRerated():
            more = event.charged_microcents - event.refunded_microcents
            return Scope(_rerated(account, event, more, at), _spent(key, month_of(event.placed_at), more), hold)
        case CreditGranted():
            return Scope(_granted(account, event, at), key, hold)
        case GrantExpired():
            grants = without_lapsed(account.grants, event.grant_id, event.amount_microcents)
            return Scope(_moved(account, at, credited=-event.amount_microcents, grants=grants), key, hold)
        case BalanceAdjusted():
            credited = event.credited_microcents - event.debited_microcents
            grants = after_taking(account.grants, event.from_grants)
            return Scope(_moved(account, at, credited=credited, grants=grants), key, hold)
        case (
            TopupRequested()
            | TopupPending()
            | TopupCredited()
            | TopupReversed()
            | TopupReinstated()
            | TopupFailed()
            | TopupExpired()
        ):
            topup = topup_after(scope.topup, event, account_id=stream_id, at=at)
            return Scope(_moved(account, at, credited=credited_by(event)), key, hold, topup=topup)
        case AutomaticTopupChanged():
            return Scope(replace(_moved(account, at), automatic_topup=_automatic_topup(event)), key, hold)
        case PlanChanged():
            return Scope(replace(_moved(account, at), plan=event.plan), key, hold)
        case KeyCreated():
            return Scope(_moved(account, at), _created(event, stream_id, at), hold)
        case KeyDeleted():
            if key is None:
                raise LedgerCorrupt(f"{stream_id}: key {event.key_id} is deleted before it was created")
            return Scope(_moved(account, at), replace(key, is_active=False), hold)
        case DepositAddressAssigned() | ProgramPublished() | ProgramAssigned() | ProgramRetired() | RatePublished():
            return Scope(_moved(account, at), key, hold)
        case ProcessorFeeCharged() | PayoutInitiated() | PayoutPaid() | PayoutFailed() | BreakResolved():
            return Scope(_moved(account, at))
        case AccountOpened():
            raise LedgerCorrupt(f"{stream_id} is opened twice")
        case _:
            assert_never(event)


def _opened(event: Event, stream_id: str, at: datetime) -> AccountState:
    if isinstance(event, AccountOpened):
        currency = event.currency
    elif stream_id == PRICE_BOOK or is_provider_stream(stream_id):
        currency = NO_CURRENCY
    else:
        raise LedgerCorrupt(f"{stream_id}: its first event is not account.opened")
    return AccountState(account_id=stream_id, currency=currency, seq=1, at=at, credited=ZERO, spent=ZERO, held=ZERO)


def _moved(
    account: AccountState,
    at: datetime,
    *,
    credited: int = 0,
    spent: int = 0,
    held: int = 0,
    grants: tuple[Grant, ...] | None = None,
) -> AccountState:
    has_moved_grants = grants is not None and grants is not account.grants
    after = AccountState(
        account_id=account.account_id,
        currency=account.currency,
        seq=account.seq + 1,
        at=at,
        credited=Microcents(account.credited + credited),
        spent=Microcents(account.spent + spent),
        held=Microcents(account.held + held),
        plan=account.plan,
        automatic_topup=account.automatic_topup,
        grants=account.grants if grants is None else grants,
        grants_due=due_at(grants or ()) if has_moved_grants else account.grants_due,
    )
    if after.held < 0:
        raise LedgerCorrupt(f"{account.account_id}: held below zero at seq {after.seq}")
    return after


def _after_hold(
    account: AccountState, hold: HoldState, released: int, shares: tuple[GrantShare, ...] = ()
) -> tuple[Grant, ...]:
    """The account's grants after a charge took these shares, and the hold then holds so much less."""
    grants = after_taking(account.grants, shares)
    return after_release(grants, placed_at=hold.placed_at, released=released) if grants else grants


def _granted(account: AccountState, event: CreditGranted, at: datetime) -> AccountState:
    amount = event.amount_microcents
    if event.grant_id is None:
        return _moved(account, at, credited=amount)
    grant = Grant(grant_id=event.grant_id, left=amount, priority=event.priority, expires_at=event.expires_at)
    return _moved(account, at, credited=amount, grants=with_granted(account.grants, grant))


def _rerated(account: AccountState, event: ChargeRerated, more: int, at: datetime) -> AccountState:
    if event.after_microcents != event.before_microcents + more:
        raise LedgerCorrupt(f"a charge of hold {event.hold_id}: before + charged - refunded is not after")
    if more < 0:
        grants = after_giving_back(account.grants, event.grants_moved, at)
    else:
        grants = after_taking(account.grants, event.grants_moved)
    return _moved(account, at, spent=more, grants=grants)


def _automatic_topup(event: AutomaticTopupChanged) -> AutomaticTopup | None:
    threshold, amount, cap = event.threshold_microcents, event.amount_microcents, event.monthly_cap_microcents
    if threshold is None or amount is None or cap is None:
        return None
    return AutomaticTopup(threshold=threshold, amount=amount, monthly_cap=cap)


def placed_hold(event: HoldPlaced, account_id: str, at: datetime) -> HoldState:
    """The hold as it is right after its placing."""
    return HoldState(
        hold_id=event.hold_id,
        account_id=account_id,
        key_id=event.key_id,
        held=event.amount_microcents,
        drawn=ZERO,
        operation=event.operation,
        model=event.model,
        program=event.price.program,
        program_version=event.price.version,
        program_digest=event.price.digest,
        worker_id=event.worker_id,
        request_id=event.request_id,
        budget_month=event.budget_month,
        placed_at=at,
        expires_at=event.expires_at,
    )


def _extended(account: AccountState, key: KeyState | None, hold: HoldState, event: HoldExtended, at: datetime) -> Scope:
    amount = event.amount_microcents
    longer = replace(hold, held=hold.held + amount, expires_at=event.expires_at)
    after = _moved(account, at, held=amount, grants=_after_hold(account, hold, -amount))
    return Scope(after, _key_moved(key, hold, amount, 0), longer)


def _drawn(account: AccountState, key: KeyState | None, hold: HoldState, event: HoldDrawn, at: datetime) -> Scope:
    amount = event.amount_microcents
    if amount > hold.held:
        raise LedgerCorrupt(f"hold {hold.hold_id}: held below zero by a draw of {amount}")
    smaller = replace(hold, held=hold.held - amount, drawn=hold.drawn + amount)
    grants = _after_hold(account, hold, amount, event.from_grants)
    after = _moved(account, at, held=-amount, spent=amount, grants=grants)
    return Scope(after, _key_moved(key, hold, -amount, amount), smaller)


def _open(hold: HoldState | None, hold_id: str) -> HoldState:
    if hold is None:
        raise LedgerCorrupt(f"hold {hold_id} is not open")
    return hold


def _ending(hold: HoldState | None, event: HoldSettled | HoldVoided | HoldExpired) -> HoldState:
    hold = _open(hold, event.hold_id)
    if hold.held != event.held_microcents:
        raise LedgerCorrupt(f"hold {hold.hold_id} holds {hold.held}, its end says {event.held_microcents}")
    return hold


def _created(event: KeyCreated, account_id: str, at: datetime) -> KeyState:
    return KeyState(
        key_id=event.key_id,
        account_id=account_id,
        is_active=True,
        rate_limit_rpm=event.rate_limit_rpm,
        monthly_budget=event.monthly_budget_microcents,
        month=month_of(at),
        month_spent=ZERO,
        month_held=ZERO,
        next_arrival=None,
        created_at=at,
        last_used_at=None,
    )


def _key_after_hold(key: KeyState | None, hold: HoldState, arrival: datetime | None) -> KeyState | None:
    if key is None:
        return None
    same_month = key.month == hold.budget_month
    return KeyState(
        key_id=key.key_id,
        account_id=key.account_id,
        is_active=key.is_active,
        rate_limit_rpm=key.rate_limit_rpm,
        monthly_budget=key.monthly_budget,
        month=hold.budget_month,
        month_spent=key.month_spent if same_month else ZERO,
        month_held=Microcents(key.month_held + hold.held) if same_month else hold.held,
        next_arrival=arrival,
        created_at=key.created_at,
        last_used_at=hold.placed_at,
    )


def _spent(key: KeyState | None, month: str, amount: int) -> KeyState | None:
    if key is None or key.month != month:
        return key
    return replace(key, month_spent=Microcents(key.month_spent + amount))


def _key_moved(key: KeyState | None, hold: HoldState, held: int, spent: int) -> KeyState | None:
    # A hold counts against the month that it was placed in, also when it ends in the next.
    if key is None or key.month != hold.budget_month:
        return key
    return replace(key, month_held=Microcents(key.month_held + held), month_spent=Microcents(key.month_spent + spent))
