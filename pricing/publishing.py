"""Writing to the price book: a version of a program, and what it prices from when on."""

import hashlib
from datetime import datetime

import msgspec

from ledger import PRICE_BOOK, Ledger, RecordPriceEvent
from ledger.events import ProgramAssigned, ProgramPublished
from pricing.price_book import PriceBook
from pricing.program import parse_program

_encode = msgspec.json.Encoder(order="deterministic").encode


async def read_price_book(ledger: Ledger) -> PriceBook:
    """The book as the log has it now."""
    book = PriceBook()
    for stored in await ledger.stream(PRICE_BOOK):
        book.apply(stored)
    return book


async def publish(ledger: Ledger, text: str, *, published_by: str) -> ProgramPublished:
    """Publish the text as the next version of the program that it names; it prices nothing until it is assigned.

    The text of the version before again is that version: nothing is written. Raises ProgramError for a text that is
    no program, and the ledger's IdempotencyMismatch when somebody else publishes the same version at this moment.
    """
    program = parse_program(text)
    book = await read_price_book(ledger)
    versions = book.versions(program.id)
    if versions:
        latest = book.published(program.id, versions[-1])
        if latest.digest == program.digest:
            return latest
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


async def assign(ledger: Ledger, assignment: ProgramAssigned, *, now: datetime) -> ProgramAssigned:
    """Let a published version price a model from a moment on. The same assignment again has no second effect.

    Raises ProgramNotPublished, and ValueError for a beginning that is over: what was charged in the past stays as it
    was charged.
    """
    book = await read_price_book(ledger)
    book.program(assignment.program, assignment.version)
    if assignment.effective_from < now:
        raise ValueError(f"effective_from {assignment.effective_from} is over")
    key = "assign:" + hashlib.sha256(_encode(assignment)).hexdigest()
    await ledger.submit(RecordPriceEvent(stream_id=PRICE_BOOK, event=assignment, idempotency_key=key))
    return assignment
