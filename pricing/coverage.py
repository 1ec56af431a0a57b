"""Whether a program has a price for all that a request could use.

What a program refuses must not be served first and found out afterwards: nobody could say what it costs. So before a
hold is placed, the usages of its box are looked at where a program could refuse one: each number at its ends and on
both sides of each edge between them, with each open text. For programs whose conditions compare one key with a number,
as price lists do, that is every kind of usage there is; for others it is a net with holes.
"""

from collections.abc import Iterable, Iterator
from decimal import Decimal
from functools import lru_cache
from itertools import islice, product

from pricing.errors import PartAboveWhole, UsageError
from pricing.language.definition import Cases, Charge, Graduated, Volume
from pricing.language.program import Program
from pricing.language.usage import Span, Usage, UsageBox
from pricing.samples import edges

#: Usages looked at for one request: bounds its time to about two milliseconds.
MAX_USAGES = 4096


class Coverage:
    """What one program may refuse, worked out once."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._edges = edges(program.definition)
        self._may_refuse = (
            all(charge.when is not None for charge in program.charges)
            or any(map(_has_gap, program.charges))
            or bool(program.definition.values)
        )

    def gap(self, box: UsageBox) -> UsageError | None:
        """Why a usage of the box is refused, be it that no case, tier or text covers it; None where none was found.

        That a part is larger than its whole is no gap: such a usage makes no sense, and no backend means it.
        """
        if not self._may_refuse:
            return None
        for usage in islice(self._usages(box), MAX_USAGES):
            try:
                self._program.price(usage)
            except PartAboveWhole:
                continue
            except UsageError as refusal:
                return refusal
        return None

    def _usages(self, box: UsageBox) -> Iterator[Usage]:
        keys = [key for key in self._program.keys if key in box]
        spans = {key: value for key in keys if isinstance(value := box[key], Span) and not self._edges.get(key)}
        told_apart = [key for key in keys if key not in spans]
        choices = [self._looked_at(key, box[key]) for key in told_apart]
        # What is only counted decides nothing, but for being large enough to be the whole of a part that does.
        lowest = {key: span.low for key, span in spans.items()}
        highest = {key: span.high for key, span in spans.items()}
        alone = ({**lowest, key: span.high} for key, span in spans.items())
        for counted in (lowest, highest, *alone):
            for values in product(*choices):
                yield {**counted, **dict(zip(told_apart, values, strict=True))}

    def _looked_at(self, key: str, value: object) -> Iterable[int | Decimal | str | bool]:
        match value:
            case frozenset():
                return sorted(value)
            case Span(low, high):
                inside = (edge + step for edge in self._edges.get(key, ()) for step in (0, 1))
                return dict.fromkeys([low, *(number for number in inside if low < number < high), high])
            case int() | Decimal() | str():
                return (value,)
            case _:
                raise UsageError(key, "is nothing that a usage can have")


@lru_cache(maxsize=10_000)
def coverage_of(program: Program) -> Coverage:
    """The coverage of a program, kept for its next request."""
    return Coverage(program)


def _has_gap(charge: Charge) -> bool:
    match charge.rate:
        case Cases(cases):
            return cases[-1].when is not None
        case Graduated(tiers) | Volume(tiers):
            return tiers[-1].up_to is not None
        case _:
            return False
