"""A picture of what a program charges: its price over the tokens, with the edges of tiers and conditions marked.

Drawing needs matplotlib, an extra of the installation; nothing else in this room does.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from fractions import Fraction
from io import StringIO
from typing import Any, TypeAlias

import msgspec

from ledger.money import MICROCENTS_PER_UNIT
from pricing.errors import PricingError, UsageError
from pricing.language.program import Program
from pricing.language.rounding import exact_text
from pricing.language.usage import Usage
from pricing.samples import edges, texts_told_apart

#: How far a panel reaches where the program has no edge to show, and for how much of the other meter it has a curve:
#: of what is counted in thousands, and of images, pages and seconds.
THOUSANDS = (100_000, (0, 1000, 10_000))
PIECES = (100, (0, 1, 10))

#: Points of a curve besides those at edges.
STEPS = 100

Number: TypeAlias = int | Decimal
Settings: TypeAlias = Mapping[str, Number | str | bool]


class Curve(msgspec.Struct, frozen=True):
    label: str
    points: list[tuple[Number, Decimal | None]]  # of the meter and the price in major units; None = refused


class Panel(msgspec.Struct, frozen=True):
    """The price over one meter."""

    meter: str
    edges: list[Number]
    curves: list[Curve]


def panels(program: Program, settings: Settings) -> list[Panel]:
    """A panel for each of the program's first two meters, with curves for some amounts of the other.

    ``settings`` fix usage keys; any other has its default, else 0, the first of its texts, or false. Raises
    PricingError for a program without a meter, and UsageError for settings that the program refuses throughout.
    """
    numbers = [key for key, kind in program.keys.items() if kind == "number" and key not in settings]
    meters = [key for key in ("input_tokens", "output_tokens") if key in numbers] or numbers[:2]
    if not meters:
        raise PricingError("the program has no meter to draw its price over")
    base = {key: _usual(program, key) for key in program.keys} | dict(settings)
    return [_panel(program, base, meter, [other for other in meters if other != meter]) for meter in meters]


def chart_svg(program: Program, settings: Settings) -> str:
    """The panels as SVG; equal programs give equal text. Raises PricingError where matplotlib is not installed."""
    drawn = panels(program, settings)
    with drawing(salt=program.digest) as new_figure:
        figure = new_figure(figsize=(6 * len(drawn), 4), layout="constrained")
        figure.suptitle(program.id)
        for number, panel in enumerate(drawn, start=1):
            _draw(figure.add_subplot(1, len(drawn), number), panel, program.currency)
        svg = StringIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return svg.getvalue()


@contextmanager
def drawing(*, salt: str) -> Iterator[Any]:
    """The class of figures, while they are drawn and saved. Raises PricingError where matplotlib is not installed."""
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise PricingError("charts need matplotlib: pip install 'tollgate[charts]'") from None
    # Text stays text, so that it can be searched and read aloud; the salt makes the ids inside the same every time.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        yield Figure


def _panel(program: Program, base: Settings, meter: str, others: list[str]) -> Panel:
    marked = edges(program.definition).get(meter, [])
    reach, _ = _shown(meter)
    end = 2 * max(marked) if marked else reach
    at = sorted({*(end * step // STEPS for step in range(STEPS + 1)), *marked, *(edge + 1 for edge in marked)})
    beside = [(other, amount) for other in others for amount in _shown(other)[1]]
    usages: list[Settings] = [{**base, other: amount} for other, amount in beside] or [base]
    labels = [f"{amount:,} {other}" for other, amount in beside] or [""]
    curves = [
        Curve(label, [(x, _price(program, {**usage, meter: x})) for x in at])
        for label, usage in zip(labels, usages, strict=True)
    ]
    if not any(price is not None for curve in curves for _, price in curve.points):
        program.price(usages[0])
    return Panel(meter, marked, curves)


def _shown(meter: str) -> tuple[int, tuple[int, ...]]:
    return THOUSANDS if meter.endswith(("tokens", "characters")) else PIECES


def _usual(program: Program, key: str) -> Number | str | bool:
    if key in program.definition.defaults:
        return program.definition.defaults[key]
    match program.keys[key]:
        case "number":
            return 0
        case "text":
            return texts_told_apart(program.definition, key)[0]
        case "flag":
            return False


def _price(program: Program, usage: Usage) -> Decimal | None:
    try:
        total = program.price(usage).total_microcents
    except UsageError:
        return None
    return Decimal(exact_text(Fraction(total, MICROCENTS_PER_UNIT)))


def _draw(axes: Any, panel: Panel, currency: str) -> None:
    for curve in panel.curves:
        # matplotlib knows Decimals, and leaves a gap where there is no price.
        axes.plot([x for x, _ in curve.points], [price for _, price in curve.points], label=curve.label)
    for edge in panel.edges:
        axes.axvline(edge, linestyle=":", color="grey")
        axes.annotate(f"{edge:,}", (edge, 1), xycoords=("data", "axes fraction"), rotation=90, va="top", ha="right")
    axes.set_xlabel(panel.meter)
    axes.set_ylabel(f"price, {currency}")
    axes.set_ylim(bottom=0)
    if panel.curves[0].label:
        axes.legend()
