"""Prices are programs: what a usage costs exactly, and what a usage not yet known can cost at most.

A program is a small TOML text. ``reader`` parses it, with ``document`` (TOML values and their places) and ``grammar``
(expressions), into one tree: ``definition`` and ``expressions``. ``plan`` lays the tree out in whole numbers;
``exact`` and ``bound`` then compile it twice, by the two algebras of ``interpreter``: to the exact price of a usage,
and to an upper bound over a box of usages, which is what a hold sets aside. ``receipt`` makes the invoice lines,
``format`` writes the tree back as text, ``price_book`` folds the events that say which program is in effect.

Before a program is published ``lint`` looks it over, ``cases`` tries it on usages worked out by hand, ``compare`` says
how far it moves prices, and ``chart`` draws it; ``samples`` finds the usages where something changes.

``backtest`` says what the usage of the past would have brought under a program, and ``rerating`` corrects what a wrong
one charged; ``repricing`` prices a stored charge again, for both.

Nothing here reads a clock, a file or the network.
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
from pricing.format import format_program
from pricing.price_book import PriceBook, PricedProgram
from pricing.program import Program, parse_program, unknown_meters
from pricing.receipt import ChargeLine, Price
from pricing.usage import Span, Usage, UsageBox

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
