"""Usage that was charged by a wrong version of a program, charged by the right one.

``Rerating`` says what that means, charge by charge; ``carry_out`` lets the ledger correct them. Both may be done again
at any time: what was corrected already is part of the plan as it was before, so that the plan is still the same, and
the ledger carries out each correction once.
"""

import asyncio
import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice

import msgspec

from ledger import Ledger, Microcents, PriceRef, Refused, RerateCharge
from ledger.charges import StoredCharge
from ledger.errors import ChargeUnknown, IdempotencyMismatch, InsufficientFunds
from pricing.errors import PricingError
from pricing.price_book import PriceBook, PricedProgram
from pricing.repricing import Repricing

#: Corrections at the ledger at once: enough that one group carries many.
AT_ONCE = 256

NOT_COVERED = "the free balance does not cover it"
CORRECTED_MEANWHILE = "somebody else corrected it meanwhile: look again"

_encode = msgspec.json.Encoder().encode


class Correction(msgspec.Struct, frozen=True):
    """What one charge becomes."""

    charge: StoredCharge
    ordinal: int  # of the charge's corrections
    before: Microcents
    after: Microcents
    is_done: bool = False  # the log has it already

    @property
    def difference(self) -> int:
        return self.after - self.before

    def command(self, price: PriceRef, *, reason: str, rerated_by: str) -> RerateCharge:
        """What the ledger is asked for."""
        return RerateCharge(
            stream_id=self.charge.account_id,
            hold_id=self.charge.event.hold_id,
            ordinal=self.ordinal,
            amount_microcents=self.after,
            price=price,
            reason=reason,
            rerated_by=rerated_by,
            reference=self.charge.reference,
            key_id=self.charge.event.key_id,
        )


class Effect(msgspec.Struct):
    """What a re-rating means for one account, in microcents of its currency. ``after`` is as if all were corrected."""

    currency: str
    charges: int = 0
    corrected: int = 0  # by an earlier run
    to_correct: int = 0
    before: int = 0
    after: int = 0


class Left(msgspec.Struct):
    """Charges of one account that are not corrected for one reason."""

    example: str  # the hold of the first
    charges: int = 0


class Leftovers:
    """Charges that are not corrected, by account and reason."""

    def __init__(self) -> None:
        self.by_reason: dict[tuple[str, str], Left] = {}

    def add(self, charge: StoredCharge, reason: str) -> None:
        left = self.by_reason.setdefault((charge.account_id, reason), Left(charge.event.hold_id))
        left.charges += 1


class Rerating:
    """Add the charges of a period in the order of the log; then read what it would do, account by account.

    What an account's free balance does not cover, in that order, will be refused: it is in ``left`` as well.
    """

    def __init__(self, wrong: PriceRef, right: PricedProgram, book: PriceBook) -> None:
        self.effects: dict[str, Effect] = {}
        self.left = Leftovers()
        self._wrong = wrong
        self._right = right.ref
        self._repricing = Repricing(right, book)
        self._available: dict[str, int] = {}
        self._digest = hashlib.sha256(_encode((wrong, right.ref)))

    @property
    def digest(self) -> str:
        """Names the plan: the same before, while and after it is carried out, and another when any amount differs."""
        return self._digest.hexdigest()[:16]

    def add(self, charges: Iterable[StoredCharge]) -> None:
        """Take in charges; those that the wrong program did not price are passed over."""
        for charge in charges:
            try:
                correction = self.correction(charge)
            except PricingError as error:
                self.left.add(charge, str(error))
                continue
            if correction is not None:
                self._add(correction)

    def correction(self, charge: StoredCharge) -> Correction | None:
        """What the charge becomes, or became; None when the wrong program did not price it.

        Raises UsageError and NoExchangeRate where the right program cannot price it.
        """
        if charge.prices[-1] == self._wrong:
            amount = charge.amount_microcents
            return Correction(charge, len(charge.corrections) + 1, amount, self._repricing.amount(charge))
        if charge.prices[-2:] == (self._wrong, self._right):
            done = charge.corrections[-1]
            return Correction(charge, done.ordinal, done.before_microcents, done.after_microcents, is_done=True)
        return None

    def to_correct(self, charges: Iterable[StoredCharge]) -> Iterator[Correction]:
        """The corrections that the log does not have yet; charges that cannot be priced are left out."""
        for charge in charges:
            try:
                correction = self.correction(charge)
            except PricingError:
                continue
            if correction is not None and not correction.is_done:
                yield correction

    def _add(self, correction: Correction) -> None:
        charge = correction.charge
        effect = self.effects.setdefault(charge.account_id, Effect(charge.currency))
        effect.charges += 1
        effect.before += correction.before
        effect.after += correction.after
        line = (charge.account_id, charge.event.hold_id, charge.reference, correction.ordinal,
                correction.before, correction.after)  # fmt: skip
        self._digest.update(_encode(line))
        if correction.is_done:
            effect.corrected += 1
            return
        effect.to_correct += 1
        available = self._available.get(charge.account_id, charge.available_microcents)
        if correction.difference > 0 and correction.difference > available:
            self.left.add(charge, NOT_COVERED)
        else:
            self._available[charge.account_id] = available - correction.difference


async def carry_out(
    ledger: Ledger,
    corrections: Iterable[Correction],
    price: PriceRef,
    *,
    reason: str,
    rerated_by: str,
    refused: Leftovers,
) -> int:
    """Correct the charges in this order; returns how many are corrected. The same again has no second effect.

    What the ledger refuses is added to ``refused`` and left as it is: the free balance does not cover it, or somebody
    else corrected the charge since it was read. Raises LedgerUnavailable; reading the charges again and carrying out
    the rest finishes it.
    """
    corrected = 0
    rest = iter(corrections)
    while chunk := list(islice(rest, AT_ONCE)):
        submissions = [
            ledger.submit(correction.command(price, reason=reason, rerated_by=rerated_by)) for correction in chunk
        ]
        results = await asyncio.gather(*submissions, return_exceptions=True)
        for correction, result in zip(chunk, results, strict=True):
            if isinstance(result, Refused):
                refused.add(correction.charge, _why(result))
            elif isinstance(result, BaseException):
                raise result
            else:
                corrected += 1
    return corrected


def _why(refusal: Refused) -> str:
    match refusal:
        case InsufficientFunds():
            return NOT_COVERED
        case IdempotencyMismatch() | ChargeUnknown():
            return CORRECTED_MEANWHILE
        case _:
            return str(refusal)
