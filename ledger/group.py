"""One group of commands, decided in memory over the states that were locked for it.

Pure, so that the group's behaviour is tested without a database: in goes what was loaded, out comes an outcome for
each command and the rows to append. One refused command never touches the others.
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
from msgspec.structs import replace

from ledger.commands import (
    Command,
    CreditTopup,
    ExpireHold,
    PlaceHold,
    RerateCharge,
    SettleHold,
    TopupCommand,
    VoidHold,
    request_hash,
)
from ledger.decide import decide
from ledger.errors import HoldAlreadyEnded, HoldUnknown, IdempotencyMismatch, NotStorable, Refused
from ledger.events import (
    ChargeRerated,
    Event,
    HoldDrawn,
    HoldExpired,
    HoldPlaced,
    HoldSettled,
    HoldSettledLate,
    HoldVoided,
    StoredEvent,
    TopupCredited,
    encode_event,
)
from ledger.evolve import evolve, placed_hold
from ledger.idempotency import idempotency_key_of, key_of_what_is_rerated
from ledger.money import Microcents
from ledger.providers import PayoutCommand, PayoutState, keys_of_payout, payout_after
from ledger.state import AccountState, Books, ChargeState, HoldState, KeyState, Scope, TopupState
from ledger.topups import repeated_at

EndEvent = HoldSettled | HoldVoided | HoldExpired

_encode_usage = msgspec.json.Encoder(decimal_format="number").encode
_decode_usage = msgspec.json.Decoder(float_hook=Decimal).decode

#: An escaped NUL: with an even number of backslashes before it, else it is the text of one.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


class Committed(msgspec.Struct, frozen=True):
    """What a command became, and the states of its account and key right after it."""

    stored: StoredEvent
    account: AccountState
    key: KeyState | None = None
    replayed: bool = False  # the event was there before: the command had been submitted already


class Past(msgspec.Struct, frozen=True, kw_only=True):
    """An event that an idempotency key stands for."""

    position: int
    stream_id: str
    seq: int
    at: datetime
    idempotency_key: str
    request_hash: str  # hex
    event: Event
    balance_microcents: Microcents | None = None

    @property
    def stored(self) -> StoredEvent:
        return StoredEvent(
            position=self.position,
            stream_id=self.stream_id,
            seq=self.seq,
            at=self.at,
            event=self.event,
            balance_microcents=self.balance_microcents,
        )


class Appended(msgspec.Struct):
    """A row for the log. Its position is the log's head before the group, plus its place in the group, plus one."""

    stream_id: str
    seq: int
    at: datetime
    event: Event
    payload: str
    hold_id: str | None
    balance: Microcents | None
    held: Microcents | None
    idempotency_key: str | None
    request_hash: bytes | None


class Loaded(msgspec.Struct):
    """What was read under the group's locks."""

    books: Books
    pasts: dict[tuple[str, str], Past]  # by stream and idempotency key
    ends: dict[str, StoredEvent]  # how holds ended that are no longer open, by hold id
    places: dict[str, StoredEvent] = {}  # how holds were placed that ended or are placed again, as far as it is known
    late: dict[str, StoredEvent] = {}  # how holds that had expired were settled all the same, by hold id
    topups: dict[str, list[StoredEvent]] = {}  # all events of the top-ups, by top-up id
    payments: dict[tuple[str, str], str] = {}  # the top-ups that payments were credited to, by provider and payment


class Outcome(msgspec.Struct):
    """Of one command: a refusal, an event that was there before, or the index of the row that it appends."""

    refusal: Refused | None = None
    stored: StoredEvent | None = None
    row: int | None = None
    account: AccountState | None = None
    key: KeyState | None = None
    replayed: bool = False  # the event is an earlier command's


class Group:
    """Decides commands in order of arrival, each over the states that the ones before it left."""

    def __init__(self, loaded: Loaded, now: datetime) -> None:
        self.books = loaded.books
        self.rows: list[Appended] = []
        self.changed_accounts: set[str] = set()
        self.changed_keys: set[str] = set()
        self.placed_holds: set[str] = set()  # in this group, and still open after it
        self.changed_holds: set[str] = set()  # placed before it
        self.ended_holds: set[str] = set()
        self.changed_topups: set[str] = set()
        self.loaded = loaded
        self._rows_of_places: dict[str, int] = {}
        self._rows_of_ends: dict[str, int] = {}
        self._rows_of_late: dict[str, int] = {}
        self._expired: dict[str, HoldState] = {}  # in this group, as they were
        self._rows_by_key: dict[tuple[str, str], int] = {}
        self._rows_of_topups: dict[str, list[int]] = {}
        self._payments = dict(loaded.payments)
        self._now = now

    def decide(self, commands: Sequence[Command]) -> list[Outcome]:
        return [self._decide_one(command) for command in commands]

    def _decide_one(self, command: Command) -> Outcome:
        key_id = getattr(command, "key_id", None)
        hold_id = getattr(command, "hold_id", None)
        topup_id = getattr(command, "topup_id", None)
        scope = self.books.scope(command.stream_id, key_id, hold_id, topup_id)
        idempotency_key = idempotency_key_of(command)
        hashed = request_hash(command) if idempotency_key is not None else None
        try:
            if isinstance(command, PlaceHold):
                repeat = self._placed_before(command, scope)
            elif idempotency_key is not None and hashed is not None:
                repeat = self._repeated(command.stream_id, idempotency_key, hashed, scope)
            elif scope.topup is not None and isinstance(command, TopupCommand):
                repeat = self._topup_before(command, scope, scope.topup)
            else:
                repeat = None
            if repeat is not None:
                return repeat
            if isinstance(command, RerateCharge):
                scope = replace(scope, charge=self._charge(command))
            elif isinstance(command, SettleHold) and scope.hold is None:
                scope = replace(scope, expired=self._expired_hold(command))
            elif isinstance(command, CreditTopup):
                scope = replace(scope, paid_for=self._payments.get((command.provider, command.payment_id)))
            elif isinstance(command, PayoutCommand):
                scope = replace(scope, payout=self._payout(command))
            at = self._now if scope.account is None else max(self._now, scope.account.at)
            try:
                event = decide(scope, command, at=at, now=self._now)
            except HoldUnknown:
                return self._ended_before(command, scope)
            payload = _storable(event)
        except Refused as refusal:
            return Outcome(refusal=refusal)
        after = evolve(scope, event, stream_id=command.stream_id, at=at)
        row = self._append(command.stream_id, event, payload, at, scope, after, idempotency_key, hashed)
        return Outcome(row=row, account=after.account, key=after.key)

    def _append(
        self,
        stream_id: str,
        event: Event,
        payload: str,
        at: datetime,
        before: Scope,
        after: Scope,
        idempotency_key: str | None,
        hashed: bytes | None,
    ) -> int:
        self.books.put(before, after)
        self._mark_changed(before, after)
        account = after.account
        assert account is not None  # every event has a stream, and evolve gives it a state
        moved = before.account is None or (
            (before.account.credited, before.account.spent, before.account.held)
            != (account.credited, account.spent, account.held)
        )
        hold_id = getattr(event, "hold_id", None)
        row = len(self.rows)
        if isinstance(event, EndEvent):
            self._rows_of_ends[event.hold_id] = row
            if isinstance(event, HoldExpired) and before.hold is not None:
                self._expired[event.hold_id] = before.hold
        elif isinstance(event, HoldSettledLate):
            self._rows_of_late[event.hold_id] = row
        elif isinstance(event, HoldPlaced):
            self._rows_of_places[event.hold_id] = row
        elif after.topup is not None:
            self._rows_of_topups.setdefault(after.topup.topup_id, []).append(row)
            if isinstance(event, TopupCredited):
                self._payments[event.provider, event.payment_id] = event.topup_id
        if idempotency_key is not None:
            self._rows_by_key[stream_id, idempotency_key] = row
        self.rows.append(
            Appended(
                stream_id,
                account.seq,
                at,
                event,
                payload,
                hold_id,
                account.posted if moved or hold_id is not None else None,
                account.held if moved or hold_id is not None else None,
                idempotency_key,
                hashed,
            )
        )
        return row

    def _mark_changed(self, before: Scope, after: Scope) -> None:
        if after.account is not None:
            self.changed_accounts.add(after.account.account_id)
        if after.key is not None and after.key is not before.key:
            self.changed_keys.add(after.key.key_id)
        if after.hold is None:
            if before.hold is not None:
                self.placed_holds.discard(before.hold.hold_id)
                self.changed_holds.discard(before.hold.hold_id)
                self.ended_holds.add(before.hold.hold_id)
        elif before.hold is None:
            self.placed_holds.add(after.hold.hold_id)
        elif after.hold.hold_id not in self.placed_holds:
            self.changed_holds.add(after.hold.hold_id)
        if after.topup is not None:
            self.changed_topups.add(after.topup.topup_id)

    def _repeated(self, stream_id: str, idempotency_key: str, hashed: bytes, scope: Scope) -> Outcome | None:
        row = self._rows_by_key.get((stream_id, idempotency_key))
        if row is not None:
            if self.rows[row].request_hash != hashed:
                raise IdempotencyMismatch(idempotency_key)
            return Outcome(row=row, account=scope.account, key=scope.key, replayed=True)
        past = self.loaded.pasts.get((stream_id, idempotency_key))
        if past is None:
            return None
        if past.request_hash != hashed.hex():
            raise IdempotencyMismatch(idempotency_key)
        return Outcome(stored=past.stored, account=scope.account, key=scope.key, replayed=True)

    def _placed_before(self, command: PlaceHold, scope: Scope) -> Outcome | None:
        """The outcome for a hold that is known to be placed: the same placing again is a replay, whatever the rules
        say of it by now, for its own amount may be what the balance lacks. Any other is refused."""
        row = self._rows_of_places.get(command.hold_id)
        if row is not None:
            here = self.rows[row]
            if not _is_same_place(command, here.event, stream_id=here.stream_id, at=here.at):
                raise IdempotencyMismatch(command.hold_id)
            return Outcome(row=row, account=scope.account, key=scope.key, replayed=True)
        stored = self.loaded.places.get(command.hold_id)
        if stored is None:
            return None
        if not _is_same_place(command, stored.event, stream_id=stored.stream_id, at=stored.at):
            raise IdempotencyMismatch(command.hold_id)
        return Outcome(stored=stored, account=scope.account, key=scope.key, replayed=True)

    def _topup_before(self, command: TopupCommand, scope: Scope, topup: TopupState) -> Outcome | None:
        """The outcome of what the account's top-up went through already."""
        if topup.account_id != command.stream_id:
            return None
        before = self.loaded.topups.get(topup.topup_id, [])
        rows = self._rows_of_topups.get(topup.topup_id, [])
        at = repeated_at(topup, command, [*(each.event for each in before), *(self.rows[row].event for row in rows)])
        if at is None:
            return None
        stored, row = (before[at], None) if at < len(before) else (None, rows[at - len(before)])
        return Outcome(stored=stored, row=row, account=scope.account, key=scope.key, replayed=True)

    def _charge(self, command: RerateCharge) -> ChargeState | None:
        """The charge as the events before the command leave it; None when it is not there, or another account's."""
        key = key_of_what_is_rerated(command)
        found: Past | StoredEvent | Appended | None
        if key is not None:
            found = self._by_key(command.stream_id, key)
        else:
            _, found = self._last_of(command.hold_id)
        if found is None or found.stream_id != command.stream_id:
            return None
        return _charge_after(found.event, found.seq)

    def _payout(self, command: PayoutCommand) -> PayoutState | None:
        found = [self._by_key(command.stream_id, key) for key in keys_of_payout(command.payout_id)]
        return payout_after(each.event for each in found if each is not None)

    def _by_key(self, stream_id: str, key: str) -> Past | Appended | None:
        """What was written under an idempotency key, before this group or in it."""
        row = self._rows_by_key.get((stream_id, key))
        return self.loaded.pasts.get((stream_id, key)) if row is None else self.rows[row]

    def _ended_before(self, command: Command, scope: Scope) -> Outcome:
        """The outcome for a hold that is not open: the same end again is a replay, any other is refused."""
        hold_id: str = command.hold_id  # type: ignore[union-attr]
        row, end = self._end_of(hold_id) if isinstance(command, ExpireHold) else self._last_of(hold_id)
        if end is None or end.stream_id != command.stream_id:
            raise HoldUnknown(hold_id)
        if not _is_same_end(command, end.event):
            raise HoldAlreadyEnded(hold_id, type(end.event).__name__)
        stored = end if isinstance(end, StoredEvent) else None
        return Outcome(stored=stored, row=row, account=scope.account, key=scope.key, replayed=True)

    def _expired_hold(self, command: SettleHold) -> HoldState | None:
        """The account's hold that expired; None when it ended in another way, or was settled since."""
        _, last = self._last_of(command.hold_id)
        if last is None or last.stream_id != command.stream_id or not isinstance(last.event, HoldExpired):
            return None
        if command.hold_id in self._expired:
            return self._expired[command.hold_id]
        placed = self.loaded.places[command.hold_id]
        assert isinstance(placed.event, HoldPlaced)  # what else places a hold
        return placed_hold(placed.event, placed.stream_id, placed.at)

    def _last_of(self, hold_id: str) -> tuple[int | None, Appended | StoredEvent | None]:
        """The late settlement of a hold, or its end where there is none: its row if it is this group's, and itself."""
        row = self._rows_of_late.get(hold_id)
        late = self.loaded.late.get(hold_id) if row is None else self.rows[row]
        return self._end_of(hold_id) if late is None else (row, late)

    def _end_of(self, hold_id: str) -> tuple[int | None, Appended | StoredEvent | None]:
        row = self._rows_of_ends.get(hold_id)
        return row, self.loaded.ends.get(hold_id) if row is None else self.rows[row]


def _charge_after(event: Event, seq: int) -> ChargeState | None:
    match event:
        case HoldSettled() | HoldSettledLate() | HoldDrawn():
            corrections, amount = 0, event.amount_microcents
        case ChargeRerated():
            corrections, amount, seq = event.ordinal, event.after_microcents, event.charge_seq
        case _:  # a hold that ended without a charge
            return None
    return ChargeState(
        seq=seq,
        corrections=corrections,
        amount=amount,
        operation=event.operation,
        model=event.model,
        placed_at=event.placed_at,
        key_id=event.key_id,
        from_grants=event.from_grants,
    )


def _is_same_end(command: Command, event: Event) -> bool:
    match command, event:
        case SettleHold(), HoldSettled() | HoldSettledLate():
            return command.amount_microcents == event.amount_microcents and (
                _as_stored(command.usage) == _as_stored(event.usage)
            )
        case VoidHold(), HoldVoided():
            return True
        case ExpireHold(), HoldExpired():
            return True
        case _:
            return False


def _is_same_place(command: PlaceHold, event: Event, *, stream_id: str, at: datetime) -> bool:
    assert isinstance(event, HoldPlaced)  # what else places a hold
    return (
        stream_id == command.stream_id
        and event.expires_at == at + timedelta(seconds=command.lifetime_s)
        and all(getattr(event, name) == getattr(command, name) for name in _SAID_BY_PLACE)
    )


_SAID_BY_PLACE = ("amount_microcents", "operation", "model", "price", "worker_id", "key_id", "request_id", "plan",
                  "exchange_rate", "retry_count")  # fmt: skip


def _as_stored(usage: dict[str, Any]) -> Any:
    """A usage as it reads after storage: a tuple as a list, a number as its exact decimal."""
    return _decode_usage(_encode_usage(usage))


def _storable(event: Event) -> str:
    """The event's payload. Raises NotStorable for a NUL character anywhere in it."""
    payload = encode_event(event).decode()
    if "\\u0000" in payload and _NUL.search(payload):
        raise NotStorable(str(event.__struct_config__.tag))
    return payload
