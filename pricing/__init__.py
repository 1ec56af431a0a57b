"""Prices are programs: what a usage costs exactly, and what a usage not yet known can cost at most.

A program is a small TOML text; ``language`` parses it and compiles it to both. ``price_book`` folds the events that say
which program is in effect, ``publishing`` writes them. ``circumstances`` is what every usage says besides its counts.

Before a program is published ``lint`` looks it over, ``cases`` tries it on usages worked out by hand, ``compare`` says
how far it moves prices, and ``chart`` draws it; ``samples`` finds the usages where something changes.

``backtest`` says what the usage of the past would have brought under a program, and ``rerating`` corrects what a wrong
one charged; ``repricing`` prices a stored charge again, for both. ``importers`` turn the price lists of others into
programs.

Nothing here reads a clock, a file or the network, but for ``publishing`` and ``rerating``, which ask the ledger.
"""

from pricing.circumstances import circumstances
from pricing.errors import (
    ModelNotPriced,
    NoExchangeRate,
    PriceBookCorrupt,
    PriceJump,
    PricingError,
    ProgramError,
    ProgramNotPublished,
    SecondPersonNeeded,
    UsageError,
)
from pricing.language.format import format_program
from pricing.language.program import Program, parse_program, unknown_meters
from pricing.language.receipt import ChargeLine, Price
from pricing.language.usage import Span, Usage, UsageBox
from pricing.price_book import PriceBook, PricedProgram

__all__ = [
    "ChargeLine",
    "ModelNotPriced",
    "NoExchangeRate",
    "Price",
    "PriceBook",
    "PriceBookCorrupt",
    "PriceJump",
    "PricedProgram",
    "PricingError",
    "Program",
    "ProgramError",
    "ProgramNotPublished",
    "SecondPersonNeeded",
    "Span",
    "Usage",
    "UsageBox",
    "UsageError",
    "circumstances",
    "format_program",
    "parse_program",
    "unknown_meters",
]
