"""The price book: which program prices which model for whom, and since when.

It is a pure fold over the stored events of the price-book stream, and answers as of any moment: today's request,
a hold of last March, a price list that begins next month.

Who comes first: an assignment to the account, then to its plan, then the list price. Within a level one for
the operation beats one for every operation; then the one that took effect last; then the one published last.
A program version that is retired at the moment prices nothing: the next best does.

A program quotes in its own currency. For an account in another one the book converts at the rate in effect at the
same moment; what it comes to is rounded up to the account's microcent.
"""

from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from typing import TypeAlias

import msgspec

from ledger.events import PriceRef, ProgramAssigned, ProgramPublished, ProgramRetired, RatePublished, StoredEvent
from ledger.money import Microcents
from pricing.errors import ModelNotPriced, NoExchangeRate, PriceBookCorrupt, ProgramError, ProgramNotPublished
from pricing.language.program import Program, parse_program
from pricing.language.usage import Usage, UsageBox

_Version: TypeAlias = tuple[str, int]

#: Model, operation, plan, account: what an assignment is for; None = for all.
_Target: TypeAlias = tuple[str, str | None, str | None, str | None]
#: Of a program, and of an account.
_Currencies: TypeAlias = tuple[str, str]


class PricedProgram(msgspec.Struct, frozen=True, eq=False):
    """The program that prices a request, the reference that a hold pins it with, and what one unit of the program's
    currency is in the account's; None = they are the same."""

    program: Program
    ref: PriceRef
    exchange_rate: Decimal | None = None

    def charge(self, usage: Usage) -> Microcents:
        """What the usage costs, in microcents of the account's currency. Raises UsageError as ``Program.price``."""
        return self.converted(self.program.price(usage).total_microcents)

    def bound(self, box: UsageBox) -> Microcents:
        """The most that a usage in the box costs, as ``charge`` does. Raises UsageError as ``Program.bound``."""
        return self.converted(self.program.bound(box))

    def converted(self, amount: Microcents) -> Microcents:
        """An amount of the program's currency in the account's, rounded up."""
        if self.exchange_rate is None:
            return amount
        numerator, denominator = self.exchange_rate.as_integer_ratio()
        return Microcents(-(-amount * numerator // denominator))


class _Answer(msgspec.Struct, frozen=True, eq=False):
    """What resolving gives from ``since`` until before ``until``; None = without end."""

    since: datetime | None
    until: datetime | None
    priced: PricedProgram

    def holds(self, at: datetime) -> bool:
        return (self.since is None or self.since <= at) and (self.until is None or at < self.until)


class _Rate(msgspec.Struct, frozen=True, eq=False):
    position: int
    event: RatePublished


class _Assignment(msgspec.Struct, frozen=True, eq=False):
    position: int  # in the log: of two that take effect together the later published wins
    event: ProgramAssigned


class PriceBook:
    """Apply the stored events in their order; then ask."""

    def __init__(self) -> None:
        self._events: list[StoredEvent] = []
        self._published: dict[_Version, StoredEvent] = {}
        self._retired: dict[_Version, datetime] = {}
        self._assigned: dict[_Target, list[_Assignment]] = {}
        self._special: set[str | None] = set()  # plans and accounts with prices of their own
        self._priced: dict[_Version, PricedProgram] = {}
        self._rates: dict[_Currencies, list[_Rate]] = {}
        self._answers: dict[tuple[_Target, str | None], _Answer] = {}

    def apply(self, stored: StoredEvent) -> None:
        """Takes in the next event of the price-book stream. Raises PriceBookCorrupt if it cannot follow."""
        match stored.event:
            case ProgramPublished() as published:
                self._publish(stored, published)
            case ProgramAssigned() as assigned:
                self._need_published(stored.position, assigned.program, assigned.version)
                target = (assigned.model, assigned.operation, assigned.plan, assigned.account_id)
                self._assigned.setdefault(target, []).append(_Assignment(stored.position, assigned))
                self._special |= {assigned.plan, assigned.account_id}
            case ProgramRetired() as retired:
                self._need_published(stored.position, retired.program, retired.version)
                version = (retired.program, retired.version)
                since = self._retired.get(version, retired.effective_from)
                self._retired[version] = min(since, retired.effective_from)
            case RatePublished() as rate:
                currencies = (rate.currency, rate.account_currency)
                self._rates.setdefault(currencies, []).append(_Rate(stored.position, rate))
            case _:
                raise PriceBookCorrupt(stored.position, "is not an event of the price book")
        self._events.append(stored)
        self._answers.clear()

    def resolve(
        self,
        *,
        model: str,
        operation: str | None,
        at: datetime,
        plan: str | None = None,
        account_id: str | None = None,
        currency: str | None = None,
    ) -> PricedProgram:
        """The program that prices the operation of the model at that moment, for the account on the plan; of no
        operation, the one for all that have no price of their own.

        Amounts are in ``currency``, the account's; without one in the program's own. Raises ModelNotPriced and
        NoExchangeRate. ``at`` has a time zone.
        """
        # Most accounts and plans have no prices of their own: they share the answers for the list price.
        if plan not in self._special:
            plan = None
        if account_id not in self._special:
            account_id = None
        target = (model, operation, plan, account_id)
        answer = self._answers.get((target, currency))
        if answer is None or not answer.holds(at):
            answer = self._answers[target, currency] = self._answer(target, currency, at)
        return answer.priced

    def in_effect(
        self, at: datetime, *, plan: str | None = None, account_id: str | None = None
    ) -> Iterator[tuple[str, str | None, PricedProgram]]:
        """Model, operation (None = all others) and program of every price at that moment, for the account on the plan,
        by name."""
        named = {(model, operation) for model, operation, _, _ in self._assigned}
        for model, operation in sorted(named, key=lambda pair: (pair[0], pair[1] or "")):
            with suppress(ModelNotPriced):
                yield (
                    model,
                    operation,
                    self.resolve(model=model, operation=operation, at=at, plan=plan, account_id=account_id),
                )

    def program(self, program: str, version: int) -> PricedProgram:
        """A published version, retired or not. Raises ProgramNotPublished."""
        if (program, version) not in self._published:
            raise ProgramNotPublished(program, version)
        return self._priced_by((program, version))

    def is_sold_to(self, account_id: str | None, *, plan: str | None, program: str, version: int, at: datetime) -> bool:
        """Whether the version prices something by then, or did: for everybody, for the plan, or for the account."""
        return any(
            (each.event.program, each.event.version) == (program, version)
            and each.event.account_id in (None, account_id)
            and each.event.plan in (None, plan)
            and each.event.effective_from <= at
            for each in self._assignments()
        )

    def is_retired(self, program: str, version: int, *, at: datetime) -> bool:
        """Whether no assignment of the version prices anything at that moment."""
        retired = self._retired.get((program, version))
        return retired is not None and retired <= at

    def exchange_rate(self, currency: str, account_currency: str, at: datetime) -> Decimal | None:
        """What one unit of a program's currency is in an account's at that moment; None = they are the same.

        Raises NoExchangeRate.
        """
        if currency == account_currency:
            return None
        return _rate(self._rates.get((currency, account_currency), []), currency, account_currency, at)

    def has_operation(self, operation: str) -> bool:
        """Whether some assignment is for this operation."""
        return any(assigned == operation for _, assigned, _, _ in self._assigned)

    def published(self, program: str, version: int) -> ProgramPublished:
        """The event that published a version. Raises ProgramNotPublished."""
        stored = self._published.get((program, version))
        if stored is None:
            raise ProgramNotPublished(program, version)
        assert isinstance(stored.event, ProgramPublished)
        return stored.event

    def versions(self, program: str) -> tuple[int, ...]:
        """The published versions of a program, oldest first; none if it is unknown."""
        return tuple(sorted(version for name, version in self._published if name == program))

    def history(self, *, model: str | None = None, program: str | None = None) -> tuple[StoredEvent, ...]:
        """The events of the book, oldest first: all, or those of one model or one program.

        A model's are its assignments and all that happened to the programs assigned to it.
        """
        programs = {program}
        if model is not None:
            programs |= {each.event.program for each in self._assignments() if each.event.model == model}
        return tuple(
            stored
            for stored in self._events
            if (model is None and program is None) or _concerns(stored, model, programs)
        )

    def _publish(self, stored: StoredEvent, published: ProgramPublished) -> None:
        version = (published.program, published.version)
        if version in self._published:
            raise PriceBookCorrupt(stored.position, f"publishes {_named(version)} a second time")
        if sha256(published.text.encode()).hexdigest() != published.digest:
            raise PriceBookCorrupt(stored.position, f"the text of {_named(version)} is not the one of its digest")
        self._published[version] = stored

    def _need_published(self, position: int, program: str, version: int) -> None:
        if (program, version) not in self._published:
            raise PriceBookCorrupt(position, f"names {program}@{version}, which has not been published")

    def _answer(self, target: _Target, currency: str | None, at: datetime) -> _Answer:
        changes: set[datetime] = set()
        best: ProgramAssigned | None = None
        for candidates in self._candidates(target):
            for each in candidates:
                changes |= self._changes(each.event)
            if best is None:
                best = self._latest(candidates, at)
        if best is None:
            raise ModelNotPriced(target[0], target[1] or "every operation")
        priced = self._priced_by((best.program, best.version))
        if currency is not None and currency != priced.program.currency:
            rates = self._rates.get((priced.program.currency, currency), [])
            changes |= {rate.event.effective_from for rate in rates}
            priced = PricedProgram(priced.program, priced.ref, _rate(rates, priced.program.currency, currency, at))
        since = max((change for change in changes if change <= at), default=None)
        until = min((change for change in changes if change > at), default=None)
        return _Answer(since, until, priced)

    def _candidates(self, target: _Target) -> Iterator[list[_Assignment]]:
        """The assignments that fit, best rank first."""
        model, operation, plan, account_id = target
        levels = [((plan, None), account_id), ((plan,), None), ((None,), None)]
        if plan is None:
            del levels[1]
        if account_id is None:
            del levels[0]
        for plans, account in levels:
            for each in (operation, None) if operation is not None else (None,):
                targets = {(model, each, one, account) for one in plans}
                yield [found for one in targets for found in self._assigned.get(one, ())]

    def _latest(self, candidates: list[_Assignment], at: datetime) -> ProgramAssigned | None:
        in_effect = [each for each in candidates if self._is_in_effect(each.event, at)]
        latest = max(in_effect, key=lambda each: (each.event.effective_from, each.position), default=None)
        return None if latest is None else latest.event

    def _is_in_effect(self, assigned: ProgramAssigned, at: datetime) -> bool:
        until = assigned.effective_until
        retired = self._retired.get((assigned.program, assigned.version))
        return assigned.effective_from <= at and (until is None or at < until) and (retired is None or at < retired)

    def _changes(self, assigned: ProgramAssigned) -> set[datetime]:
        """The moments at which the assignment begins or ceases to price."""
        retired = self._retired.get((assigned.program, assigned.version))
        moments = {assigned.effective_from, assigned.effective_until, retired}
        return {moment for moment in moments if moment is not None}

    def _priced_by(self, version: _Version) -> PricedProgram:
        # Parsed when first needed: a book of many thousand versions is to be read in seconds at every start.
        if version not in self._priced:
            stored = self._published[version]
            assert isinstance(stored.event, ProgramPublished)
            try:
                program = parse_program(stored.event.text)
            except ProgramError as error:
                raise PriceBookCorrupt(stored.position, f"{_named(version)} does not parse: {error}") from error
            ref = PriceRef(program=version[0], version=version[1], digest=program.digest)
            self._priced[version] = PricedProgram(program, ref)
        return self._priced[version]

    def _assignments(self) -> Iterator[_Assignment]:
        for assignments in self._assigned.values():
            yield from assignments


def _rate(rates: list[_Rate], currency: str, account_currency: str, at: datetime) -> Decimal:
    in_effect = [each for each in rates if each.event.effective_from <= at]
    if not in_effect:
        raise NoExchangeRate(currency, account_currency)
    return max(in_effect, key=lambda each: (each.event.effective_from, each.position)).event.rate


def _concerns(stored: StoredEvent, model: str | None, programs: set[str | None]) -> bool:
    match stored.event:
        case ProgramAssigned() as assigned:
            return assigned.model == model or (model is None and assigned.program in programs)
        case ProgramPublished() | ProgramRetired() as event:
            return event.program in programs
        case _:
            return False


def _named(version: _Version) -> str:
    return f"{version[0]}@{version[1]}"
