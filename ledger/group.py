"""One group of commands, decided in memory over the states that were locked for it.

Pure, so that the group's behaviour is tested without a database: in goes what was loaded, out comes an outcome for
each command and the rows to append. One refused command never touches the others.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from ledger.commands import (
    AdjustBalance,
    Command,
    CreateKey,
    DeleteKey,
    DrawHold,
    ExpireHold,
    ExtendHold,
    GrantCredit,
    OpenAccount,
    PlaceHold,
    RecordPriceEvent,
    SettleHold,
    VoidHold,
    request_hash,
)
from ledger.decide import decide
from ledger.errors import HoldAlreadyEnded, HoldUnknown, IdempotencyMismatch, Refused
from ledger.events import Event, HoldExpired, HoldSettled, HoldVoided, StoredEvent
from ledger.evolve import evolve
from ledger.money import Microcents
from ledger.state import AccountState, Books, KeyState, Scope

EndEvent = HoldSettled | HoldVoided | HoldExpired

_encode_event = msgspec.json.Encoder().encode


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


class Outcome(msgspec.Struct):
    """Of one command: a refusal, an event that was there before, or the index of the row that it appends."""

    refusal: Refused | None = None
    stored: StoredEvent | None = None
    row: int | None = None
    account: AccountState | None = None
    key: KeyState | None = None


def idempotency_key_of(command: Command) -> str | None:
    """The key under which the log remembers a command that no hold remembers.

    The prefix keeps a key that a client chose from meeting one that we derive.
    """
    match command:
        case PlaceHold() | SettleHold() | VoidHold() | ExpireHold() | ExtendHold():
            return None
        case DrawHold():
            return f"draw:{command.hold_id}:{command.reference}"
        case GrantCredit():
            return f"grant:{command.idempotency_key}"
        case AdjustBalance():
            return f"adjust:{command.idempotency_key}"
        case RecordPriceEvent():
            return f"price:{command.idempotency_key}"
        case OpenAccount():
            return "open"
        case CreateKey():
            return f"key:{command.key_id}"
        case DeleteKey():
            return f"key-deleted:{command.key_id}"


class Group:
    """Decides commands in order of arrival, each over the states that the ones before it left."""

    def __init__(self, loaded: Loaded, now: datetime) -> None:
        self.books = loaded.books
        self.rows: list[Appended] = []
        self.changed_accounts: set[str] = set()
        self.changed_keys: set[str] = set()
        self.changed_holds: set[str] = set()
        self.ended_holds: set[str] = set()
        self._pasts = loaded.pasts
        self._ends = loaded.ends
        self._ended_here: dict[str, EndEvent] = {}
        self._rows_by_key: dict[tuple[str, str], int] = {}
        self._now = now

    def decide(self, commands: Sequence[Command]) -> list[Outcome]:
        return [self._decide_one(command) for command in commands]

    def _decide_one(self, command: Command) -> Outcome:
        key_id = getattr(command, "key_id", None)
        hold_id = getattr(command, "hold_id", None)
        scope = self.books.scope(command.stream_id, key_id, hold_id)
        idempotency_key = idempotency_key_of(command)
        hashed = request_hash(command) if idempotency_key is not None else None
        try:
            if idempotency_key is not None and hashed is not None:
                repeat = self._repeated(command.stream_id, idempotency_key, hashed, scope)
                if repeat is not None:
                    return repeat
            at = self._now if scope.account is None else max(self._now, scope.account.at)
            try:
                event = decide(scope, command, at=at, now=self._now)
            except HoldUnknown:
                return self._ended_before(command, scope)
        except Refused as refusal:
            return Outcome(refusal=refusal)
        after = evolve(scope, event, stream_id=command.stream_id, at=at)
        row = self._append(command.stream_id, event, at, scope, after, idempotency_key, hashed)
        return Outcome(row=row, account=after.account, key=after.key)

    def _append(
        self,
        stream_id: str,
        event: Event,
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
        if isinstance(event, EndEvent):
            self._ended_here[event.hold_id] = event
        row = len(self.rows)
        if idempotency_key is not None:
            self._rows_by_key[stream_id, idempotency_key] = row
        self.rows.append(
            Appended(
                stream_id,
                account.seq,
                at,
                event,
                _encode_event(event).decode(),
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
        if after.hold is not None:
            self.changed_holds.add(after.hold.hold_id)
        elif before.hold is not None:
            self.changed_holds.discard(before.hold.hold_id)
            self.ended_holds.add(before.hold.hold_id)

    def _repeated(self, stream_id: str, idempotency_key: str, hashed: bytes, scope: Scope) -> Outcome | None:
        row = self._rows_by_key.get((stream_id, idempotency_key))
        if row is not None:
            if self.rows[row].request_hash != hashed:
                raise IdempotencyMismatch(idempotency_key)
            return Outcome(row=row, account=scope.account, key=scope.key)
        past = self._pasts.get((stream_id, idempotency_key))
        if past is None:
            return None
        if past.request_hash != hashed.hex():
            raise IdempotencyMismatch(idempotency_key)
        return Outcome(stored=past.stored, account=scope.account, key=scope.key)

    def _ended_before(self, command: Command, scope: Scope) -> Outcome:
        """The outcome for a hold that is not open: the same end again is a replay, any other is refused."""
        hold_id: str = command.hold_id  # type: ignore[union-attr]
        if hold_id in self._ended_here:
            raise HoldAlreadyEnded(hold_id, type(self._ended_here[hold_id]).__name__)
        stored = self._ends.get(hold_id)
        if stored is None or stored.stream_id != command.stream_id:
            raise HoldUnknown(hold_id)
        if not _is_same_end(command, stored.event):
            raise HoldAlreadyEnded(hold_id, type(stored.event).__name__)
        return Outcome(stored=stored, account=scope.account, key=scope.key)


def _is_same_end(command: Command, event: Event) -> bool:
    match command, event:
        case SettleHold(), HoldSettled():
            return command.amount_microcents == event.amount_microcents and command.usage == event.usage
        case VoidHold(), HoldVoided():
            return True
        case ExpireHold(), HoldExpired():
            return True
        case _:
            return False
