"""What can go wrong with a price.

PricingError
├── ProgramError         the text is not a price program; says at which line and column
├── UsageError           the usage cannot be priced; says which key and why
│   └── PartAboveWhole   a part is larger than what it is a part of
├── ModelNotPriced       nothing in the price book prices that operation of that model at that time
├── NoExchangeRate       the program is in another currency than the account, and no rate is in effect
├── PriceJump            a price changes by so much that somebody must say that it is meant
├── SecondPersonNeeded   who published a version may not be the one who puts it in effect
├── ProgramNotPublished  the price book has no such version of a program
└── PriceBookCorrupt     the stored price events contradict each other
"""

from collections.abc import Sequence


class PricingError(Exception):
    """Root of everything this room raises on purpose."""


class ProgramError(PricingError):
    """The text is not a price program. ``line`` and ``column`` count from 1; the author corrects the text."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(f"line {line}, column {column}: {message}")
        self.message = message
        self.line = line
        self.column = column


class UsageError(PricingError):
    """A usage, or a box of usages, cannot be priced: a key is missing, of the wrong type, or makes no sense.

    Nothing is charged on a guess: the caller refuses the request, or raises an alarm when the backend has
    answered already.
    """

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"{key}: {reason}")
        self.key = key
        self.reason = reason


class PartAboveWhole(UsageError):
    """A part of a usage is larger than what it is a part of: more was cached, say, than came in."""


class ModelNotPriced(PricingError):
    """No program prices the operation of the model. A request for it is refused, never forwarded free."""

    def __init__(self, model: str, operation: str) -> None:
        super().__init__(f"no price program is in effect for {operation} of model {model!r}")
        self.model = model
        self.operation = operation


class NoExchangeRate(PricingError):
    """The price is in another currency than the account, and no rate between the two is in effect. A request for it is
    refused: an amount is never taken for one of another currency."""

    def __init__(self, currency: str, account_currency: str) -> None:
        super().__init__(f"the price is in {currency}, and no rate converts that into {account_currency}")
        self.currency = currency
        self.account_currency = account_currency


class PriceJump(PricingError):
    """A price is more than ``MAX_FACTOR`` times, or less than that part of, what it replaces: most often a price per
    token written as one per million. The author looks at it again, and confirms it if it is meant."""

    def __init__(self, changes: Sequence[str]) -> None:
        super().__init__(f"{'; '.join(changes)}; confirm it if it is meant")
        self.changes = changes


class SecondPersonNeeded(PricingError):
    """The setting ``prices.two_people`` is on, and the one who published the version wants to assign it."""

    def __init__(self, program: str, version: int, person: str) -> None:
        super().__init__(f"{program}@{version} was published by {person}: somebody else must assign it")
        self.person = person


class ProgramNotPublished(PricingError):
    """The price book holds no such version of the program."""

    def __init__(self, program: str, version: int) -> None:
        super().__init__(f"{program}@{version} has not been published")
        self.program = program
        self.version = version


class PriceBookCorrupt(PricingError):
    """The stored price events contradict each other: tampering or a bug of ours, never an input error.

    ``position`` is the event's place in the log. The caller stops: prices can no longer be trusted.
    """

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(f"price book, event at position {position}: {reason}")
        self.position = position
        self.reason = reason
