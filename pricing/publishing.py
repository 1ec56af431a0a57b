"""Writing to the price book: a version of a program, what it prices from when on, its end, and exchange rates."""

import hashlib
import re
from contextlib import suppress
from datetime import datetime
from decimal import Decimal

import msgspec

from ledger import PRICE_BOOK, Ledger, RecordPriceEvent
from ledger.events import PriceBookEvent, ProgramAssigned, ProgramPublished, ProgramRetired, RatePublished
from pricing.compare import jumps
from pricing.errors import ModelNotPriced, NoExchangeRate, PriceJump, SecondPersonNeeded
from pricing.language.program import Program, parse_program
from pricing.language.rounding import exact_text
from pricing.price_book import PriceBook

#: A larger step in any price is more often an accident than a decision.
MAX_FACTOR = Decimal(10)

_CURRENCY = re.compile(r"[A-Z]{3}")

_encode = msgspec.json.Encoder(order="deterministic").encode


async def read_price_book(ledger: Ledger) -> PriceBook:
    """The book as the log has it now."""
    book = PriceBook()
    for stored in await ledger.stream(PRICE_BOOK):
        book.apply(stored)
    return book


async def publish(ledger: Ledger, text: str, *, published_by: str, confirmed: bool = False) -> ProgramPublished:
    """Publish the text as the next version of the program that it names; it prices nothing until it is assigned.

    The text of the version before again is that version: nothing is written. Raises ProgramError for a text that is
    no program, PriceJump for one whose prices are far from the version before unless that is ``confirmed``, and the
    ledger's IdempotencyMismatch when somebody else publishes the same version at this moment.
    """
    program = parse_program(text)
    book = await read_price_book(ledger)
    versions = book.versions(program.id)
    if versions:
        latest = book.published(program.id, versions[-1])
        if latest.digest == program.digest:
            return latest
        if not confirmed:
            _refuse_jump(book.program(program.id, versions[-1]).program, program)
    event = ProgramPublished(
        program=program.id,
        version=versions[-1] + 1 if versions else 1,
        text=text,
        digest=program.digest,
        published_by=published_by,
    )
    await ledger.submit(
        RecordPriceEvent(stream_id=PRICE_BOOK, event=event, idempotency_key=f"{event.program}@{event.version}")
    )
    return event


async def assign(
    ledger: Ledger, assignment: ProgramAssigned, *, now: datetime, confirmed: bool = False, two_people: bool = False
) -> ProgramAssigned:
    """Let a published version price a model from a moment on. The same assignment again has no second effect.

    Raises ProgramNotPublished; PriceJump when what is in effect for the same then is another price by far, unless that
    is ``confirmed``; SecondPersonNeeded under the rule of ``two_people``; and ValueError for a time that is over or
    empty, and for a version that is retired by then: what was charged in the past stays as it was charged.
    """
    book = await read_price_book(ledger)
    published = book.published(assignment.program, assignment.version)
    _refuse_past(assignment.effective_from, now)
    if assignment.effective_until is not None and assignment.effective_until <= assignment.effective_from:
        raise ValueError(f"effective_until {assignment.effective_until} is not after effective_from")
    if two_people and assignment.assigned_by == published.published_by:
        raise SecondPersonNeeded(assignment.program, assignment.version, published.published_by)
    if book.is_retired(assignment.program, assignment.version, at=assignment.effective_from):
        raise ValueError(f"{assignment.program}@{assignment.version} is retired by {assignment.effective_from}")
    program = book.program(assignment.program, assignment.version).program
    replaced = _replaced(book, assignment)
    if replaced is not None and not confirmed:
        _refuse_jump(replaced, program)
    await _record(ledger, "assign", assignment)
    return assignment


async def retire(ledger: Ledger, retirement: ProgramRetired, *, now: datetime) -> ProgramRetired:
    """Let no assignment of a version price anything from a moment on; what was held under it is charged by it.

    Raises ProgramNotPublished, and ValueError for a moment that is over.
    """
    (await read_price_book(ledger)).published(retirement.program, retirement.version)
    _refuse_past(retirement.effective_from, now)
    await _record(ledger, "retire", retirement)
    return retirement


async def publish_rate(ledger: Ledger, rate: RatePublished, *, now: datetime, confirmed: bool = False) -> RatePublished:
    """Convert prices of one currency into another's from a moment on.

    Raises ValueError for a rate that is none, and PriceJump for one far from the rate in effect then, unless that is
    ``confirmed``.
    """
    for currency in (rate.currency, rate.account_currency):
        if not _CURRENCY.fullmatch(currency):
            raise ValueError(f"{currency!r} is no currency: three capital letters, as in ISO 4217")
    if not rate.rate.is_finite() or rate.rate <= 0:
        raise ValueError(f"an exchange rate is above zero, not {rate.rate}")
    if rate.currency == rate.account_currency:
        raise ValueError(f"{rate.currency} needs no rate to itself")
    _refuse_past(rate.effective_from, now)
    with suppress(NoExchangeRate):
        book = await read_price_book(ledger)
        before = book.exchange_rate(rate.currency, rate.account_currency, rate.effective_from)
        if before is not None and not confirmed and _is_far(before, rate.rate):
            raise PriceJump([f"1 {rate.currency} from {before} to {rate.rate} {rate.account_currency}"])
    await _record(ledger, "rate", rate)
    return rate


async def _record(ledger: Ledger, kind: str, event: PriceBookEvent) -> None:
    key = f"{kind}:{hashlib.sha256(_encode(event)).hexdigest()}"
    await ledger.submit(RecordPriceEvent(stream_id=PRICE_BOOK, event=event, idempotency_key=key))


def _refuse_past(effective_from: datetime, now: datetime) -> None:
    if effective_from < now:
        raise ValueError(f"effective_from {effective_from} is over")


def _replaced(book: PriceBook, assignment: ProgramAssigned) -> Program | None:
    """What would price the same without the assignment, when it begins; None if nothing would."""
    try:
        priced = book.resolve(
            model=assignment.model,
            operation=assignment.operation,
            at=assignment.effective_from,
            plan=assignment.plan,
            account_id=assignment.account_id,
        )
    except ModelNotPriced:
        return None
    return priced.program


def _is_far(before: Decimal, after: Decimal) -> bool:
    return after > before * MAX_FACTOR or before > after * MAX_FACTOR


def _refuse_jump(before: Program, after: Program) -> None:
    if before.currency != after.currency:
        raise PriceJump([f"the currency from {before.currency} to {after.currency}"])
    found = jumps(before, after, MAX_FACTOR)
    if found:
        raise PriceJump([f"{jump.charge} from {exact_text(jump.before)} to {exact_text(jump.after)}" for jump in found])
