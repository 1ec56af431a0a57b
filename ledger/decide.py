"""The one place where money and limits are judged: state + command → event, or a refusal.

Pure: no I/O, no clock. ``at`` is the event's time, never before the stream's event before it; ``now`` is what the
clock says, for limits that look at elapsed time. The committer calls it under the account's lock.
"""

from datetime import datetime, timedelta
from typing import Any, assert_never

from msgspec.structs import replace

from ledger.amounts import bookable, positive
from ledger.commands import (
    AdjustBalance,
    AssignDepositAddress,
    ChangeAutomaticTopup,
    ChangePlan,
    Command,
    CreateKey,
    CreditTopup,
    DeleteKey,
    DrawHold,
    ExpireGrant,
    ExpireHold,
    ExpireTopup,
    ExtendHold,
    FailTopup,
    GrantCredit,
    MarkTopupPending,
    OpenAccount,
    PlaceHold,
    RecordPriceEvent,
    ReinstateTopup,
    RequestTopup,
    RerateCharge,
    ReverseTopup,
    SettleHold,
    VoidHold,
)
from ledger.errors import (
    AccountUnknown,
    BudgetExceeded,
    ChargeUnknown,
    DrawExceedsHold,
    HoldAlreadyEnded,
    HoldNotOverdue,
    HoldUnknown,
    IdempotencyMismatch,
    InsufficientFunds,
    InvalidAmount,
    KeyInactive,
    KeyUnknown,
    PlanOutdated,
    RateLimited,
    WrongStream,
)
from ledger.events import (
    PRICE_BOOK,
    AccountOpened,
    AutomaticTopupChanged,
    BalanceAdjusted,
    ChargeRerated,
    DepositAddressAssigned,
    Event,
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
)
from ledger.granting import expiry_of_grant, new_grant
from ledger.grants import moved_by_correction, taken_by_charge
from ledger.limits import month_end, month_of, next_arrival, request_interval, wait_for
from ledger.money import Microcents
from ledger.providers import (
    ChargeProcessorFee,
    FailPayout,
    InitiatePayout,
    PayPayout,
    ResolveBreak,
    is_provider_stream,
    provider_event,
)
from ledger.state import AccountState, HoldState, KeyState, Scope
from ledger.topups import topup_event


def decide(scope: Scope, command: Command, *, at: datetime, now: datetime) -> Event:
    """The event that the command becomes. Raises a leaf of ``Refused`` when the rules do not allow it."""
    if scope.account is not None and scope.account.grants_due is not None:
        scope = replace(scope, account=scope.account.as_of(at))
    match command:
        case PlaceHold():
            return _place(scope, command, at, now)
        case SettleHold():
            return _settle(scope, command)
        case VoidHold():
            hold = _open_hold(scope, command.stream_id, command.hold_id)
            return HoldVoided(**_end_fields(hold), reason=command.reason, served=command.served)
        case ExpireHold():
            hold = _open_hold(scope, command.stream_id, command.hold_id)
            if command.overdue_at is not None and hold.expires_at >= command.overdue_at:
                raise HoldNotOverdue(hold.hold_id, hold.expires_at)
            return HoldExpired(**_end_fields(hold), reason=command.reason)
        case ExtendHold():
            return _extend(scope, command, at)
        case DrawHold():
            return _draw(scope, command)
        case OpenAccount():
            _require_account_stream(command.stream_id)
            return AccountOpened(currency=command.currency)
        case GrantCredit():
            return new_grant(_account(scope, command.stream_id), command, at)
        case ExpireGrant():
            return expiry_of_grant(_account(scope, command.stream_id), command)
        case AdjustBalance():
            return _adjust(scope, command)
        case (
            RequestTopup()
            | MarkTopupPending()
            | CreditTopup()
            | ReverseTopup()
            | ReinstateTopup()
            | FailTopup()
            | ExpireTopup()
        ):
            _account(scope, command.stream_id)
            return topup_event(scope, command)
        case ChangeAutomaticTopup():
            return _change_automatic_topup(scope, command)
        case AssignDepositAddress():
            _account(scope, command.stream_id)
            return DepositAddressAssigned(
                index=command.index, address=command.address, key_fingerprint=command.key_fingerprint
            )
        case ChangePlan():
            _account(scope, command.stream_id)
            return PlanChanged(plan=command.plan, changed_by=command.changed_by)
        case RerateCharge():
            return _rerate(scope, command)
        case CreateKey():
            return _create_key(scope, command)
        case DeleteKey():
            _active_key(scope, command.stream_id, command.key_id)
            return KeyDeleted(key_id=command.key_id)
        case RecordPriceEvent():
            if command.stream_id != PRICE_BOOK:
                raise WrongStream(command.stream_id)
            return command.event
        case ChargeProcessorFee() | InitiatePayout() | PayPayout() | FailPayout() | ResolveBreak():
            return provider_event(scope.payout, command)
        case _:
            assert_never(command)


def _place(scope: Scope, command: PlaceHold, at: datetime, now: datetime) -> HoldPlaced:
    amount = bookable(command.amount_microcents)
    account = _account(scope, command.stream_id)
    if command.plan != account.plan:
        raise PlanOutdated(account.account_id, priced_for=command.plan, plan=account.plan)
    month = month_of(at)
    arrival = None
    if command.key_id is not None:
        key = _active_key(scope, command.stream_id, command.key_id)
        arrival = _check_rate(key, now)
        _check_budget(key, account.currency, amount, month, at)
    _check_funds(account, amount)
    return HoldPlaced(
        hold_id=command.hold_id,
        amount_microcents=amount,
        operation=command.operation,
        model=command.model,
        price=command.price,
        worker_id=command.worker_id,
        expires_at=at + timedelta(seconds=command.lifetime_s),
        budget_month=month,
        key_id=command.key_id,
        request_id=command.request_id,
        next_arrival=arrival,
        plan=command.plan,
        exchange_rate=command.exchange_rate,
        retry_count=command.retry_count,
    )


def _extend(scope: Scope, command: ExtendHold, at: datetime) -> HoldExtended:
    hold = _open_hold(scope, command.stream_id, command.hold_id)
    account = _account(scope, command.stream_id)
    # A total at or below what is there adds nothing: asking twice for the same extension has one effect.
    added = Microcents(max(bookable(command.total_microcents) - hold.held - hold.drawn, 0))
    if scope.key is not None and hold.budget_month == scope.key.month:
        _check_budget(scope.key, account.currency, added, hold.budget_month, at, own=hold.held)
    _check_funds(account, added, own=hold.held)
    return HoldExtended(
        hold_id=hold.hold_id,
        amount_microcents=added,
        expires_at=max(at + timedelta(seconds=command.lifetime_s), hold.expires_at),
    )


def _draw(scope: Scope, command: DrawHold) -> HoldDrawn:
    hold = _open_hold(scope, command.stream_id, command.hold_id)
    account = _account(scope, command.stream_id)
    amount = bookable(command.amount_microcents)
    if amount > hold.held:
        raise DrawExceedsHold(hold.hold_id, needed=amount, left=hold.held)
    return HoldDrawn(
        hold_id=hold.hold_id,
        reference=command.reference,
        amount_microcents=amount,
        operation=hold.operation,
        model=hold.model,
        placed_at=hold.placed_at,
        price=hold.price,
        usage=command.usage,
        key_id=hold.key_id,
        request_id=hold.request_id,
        from_grants=taken_by_charge(account.grants, amount, placed_at=hold.placed_at, held=amount),
    )


def _settle(scope: Scope, command: SettleHold) -> HoldSettled | HoldSettledLate:
    if scope.expired is not None and command.may_be_late:
        return _settle_late(scope, scope.expired, command)
    hold = _open_hold(scope, command.stream_id, command.hold_id)
    account = _account(scope, command.stream_id)
    amount = bookable(command.amount_microcents)
    overrun = max(amount - hold.held, 0)
    return HoldSettled(
        **_end_fields(hold),
        amount_microcents=amount,
        released_microcents=Microcents(max(hold.held - amount, 0)),
        overrun_microcents=Microcents(overrun),
        debt_microcents=_uncovered(account, overrun),
        price=hold.price,
        usage=command.usage,
        outcome=command.outcome,
        backend=command.backend,
        served=command.served,
        from_grants=taken_by_charge(account.grants, amount, placed_at=hold.placed_at, held=hold.held),
    )


def _settle_late(scope: Scope, hold: HoldState, command: SettleHold) -> HoldSettledLate:
    if command.key_id != hold.key_id:  # the charge would be missing from the budget of the hold's key
        raise HoldAlreadyEnded(hold.hold_id, HoldExpired.__name__)
    account = _account(scope, command.stream_id)
    amount = bookable(command.amount_microcents)
    return HoldSettledLate(
        hold_id=hold.hold_id,
        amount_microcents=amount,
        debt_microcents=_uncovered(account, amount),
        operation=hold.operation,
        model=hold.model,
        placed_at=hold.placed_at,
        price=hold.price,
        usage=command.usage,
        outcome=command.outcome,
        backend=command.backend,
        served=command.served,
        key_id=hold.key_id,
        request_id=hold.request_id,
        from_grants=taken_by_charge(account.grants, amount),
    )


def _rerate(scope: Scope, command: RerateCharge) -> ChargeRerated:
    account = _account(scope, command.stream_id)
    charge = scope.charge
    if charge is None or charge.corrections != command.ordinal - 1 or charge.key_id != command.key_id:
        raise ChargeUnknown(command.hold_id, command.reference, corrections=command.ordinal - 1)
    # Nothing more or less is a correction too: the charge is the right program's from then on.
    more = bookable(command.amount_microcents) - charge.amount
    # The request was served: what its correction adds is refused for lack of money, not for the key's budget.
    _check_funds(account, Microcents(max(more, 0)))
    moved, standing = moved_by_correction(account.grants, charge.from_grants, amount=charge.amount, more=more)
    return ChargeRerated(
        hold_id=command.hold_id,
        charge_seq=charge.seq,
        ordinal=command.ordinal,
        before_microcents=charge.amount,
        after_microcents=command.amount_microcents,
        charged_microcents=Microcents(max(more, 0)),
        refunded_microcents=Microcents(max(-more, 0)),
        operation=charge.operation,
        model=charge.model,
        placed_at=charge.placed_at,
        price=command.price,
        reason=command.reason,
        rerated_by=command.rerated_by,
        reference=command.reference,
        key_id=charge.key_id,
        from_grants=standing,
        grants_moved=moved,
    )


def _adjust(scope: Scope, command: AdjustBalance) -> BalanceAdjusted:
    account = _account(scope, command.stream_id)
    amount = command.amount_microcents
    positive(Microcents(abs(amount)))
    if amount < 0 and -amount > account.available:
        raise InsufficientFunds(
            account.account_id,
            account.currency,
            needed=Microcents(-amount),
            available=account.available,
            held=account.held,
        )
    beyond_paid = max(-amount - max(account.paid, 0), 0)
    return BalanceAdjusted(
        credited_microcents=Microcents(max(amount, 0)),
        debited_microcents=Microcents(max(-amount, 0)),
        reason=command.reason,
        adjusted_by=command.adjusted_by,
        from_grants=taken_by_charge(account.grants, Microcents(beyond_paid)),
    )


def _change_automatic_topup(scope: Scope, command: ChangeAutomaticTopup) -> AutomaticTopupChanged:
    _account(scope, command.stream_id)
    wanted = command.automatic_topup
    if wanted is not None and bookable(wanted.monthly_cap) < positive(wanted.amount):
        raise InvalidAmount(wanted.monthly_cap, "a monthly cap pays for one automatic top-up at least")
    return AutomaticTopupChanged(
        threshold_microcents=None if wanted is None else bookable(wanted.threshold),
        amount_microcents=None if wanted is None else wanted.amount,
        monthly_cap_microcents=None if wanted is None else wanted.monthly_cap,
        changed_by=command.changed_by,
    )


def _create_key(scope: Scope, command: CreateKey) -> KeyCreated:
    _account(scope, command.stream_id)
    if scope.key is not None:  # another account's: this account's own would have been found by its idempotency key
        raise IdempotencyMismatch(command.key_id)
    if command.rate_limit_rpm is not None and command.rate_limit_rpm < 1:
        raise InvalidAmount(command.rate_limit_rpm, "a rate limit is at least 1 request per minute")
    if command.monthly_budget_microcents is not None:
        bookable(command.monthly_budget_microcents)
    return KeyCreated(
        key_id=command.key_id,
        rate_limit_rpm=command.rate_limit_rpm,
        monthly_budget_microcents=command.monthly_budget_microcents,
    )


def _check_rate(key: KeyState, now: datetime) -> datetime | None:
    """The key's theoretical arrival time after this request; None when it has no rate limit."""
    limit = key.rate_limit_rpm
    if limit is None:
        return None
    arrival = next_arrival(key.next_arrival, limit_rpm=limit, now=now)
    wait = wait_for(arrival, limit_rpm=limit, now=now)
    if wait:
        raise RateLimited(
            key.key_id,
            limit_rpm=limit,
            retry_after_s=wait.total_seconds(),
            reset_after_s=(arrival - now - request_interval(limit)).total_seconds(),
        )
    return arrival


def _check_budget(key: KeyState, currency: str, amount: Microcents, month: str, at: datetime, *, own: int = 0) -> None:
    if key.monthly_budget is None or amount == 0:
        return
    spent, held = (key.month_spent, key.month_held) if key.month == month else (0, 0)
    if spent + held + amount > key.monthly_budget:
        raise BudgetExceeded(
            key.key_id,
            currency,
            needed=amount,
            limit=key.monthly_budget,
            spent=Microcents(spent),
            held=Microcents(held),
            own=own,
            resets_at=month_end(at),
        )


def _check_funds(account: AccountState, amount: Microcents, *, own: int = 0) -> None:
    # Nothing to set aside needs no funds: a model whose price is zero also runs at zero balance, and in debt.
    if amount > 0 and amount > account.available:
        raise InsufficientFunds(
            account.account_id,
            account.currency,
            needed=amount,
            available=account.available,
            held=account.held,
            own=own,
        )


def _uncovered(account: AccountState, amount: int) -> Microcents:
    """The part of the amount that the free balance does not cover."""
    return Microcents(max(amount - max(account.available, 0), 0))


def _require_account_stream(stream_id: str) -> None:
    if stream_id == PRICE_BOOK or is_provider_stream(stream_id):
        raise WrongStream(stream_id)


def _account(scope: Scope, account_id: str) -> AccountState:
    _require_account_stream(account_id)
    if scope.account is None:
        raise AccountUnknown(account_id)
    return scope.account


def _active_key(scope: Scope, account_id: str, key_id: str) -> KeyState:
    key = scope.key
    if key is None or key.account_id != account_id:
        raise KeyUnknown(key_id)
    if not key.is_active:
        raise KeyInactive(key_id)
    return key


def _open_hold(scope: Scope, account_id: str, hold_id: str) -> HoldState:
    hold = scope.hold
    if hold is None or hold.account_id != account_id:
        raise HoldUnknown(hold_id)
    return hold


def _end_fields(hold: HoldState) -> dict[str, Any]:
    return {
        "hold_id": hold.hold_id,
        "held_microcents": hold.held,
        "operation": hold.operation,
        "model": hold.model,
        "placed_at": hold.placed_at,
        "key_id": hold.key_id,
        "request_id": hold.request_id,
    }
