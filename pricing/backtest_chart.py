"""A picture of a backtest: revenue by day under both programs, and whom the difference hits."""

from decimal import Decimal
from fractions import Fraction
from io import BytesIO
from typing import Any

from ledger.money import MICROCENTS_PER_UNIT
from pricing.backtest import Backtest
from pricing.chart import drawing
from pricing.errors import PricingError
from pricing.language.program import Program
from pricing.language.rounding import exact_text

#: Accounts shown on either side: more could not be read.
ACCOUNTS = 10


def require_chart(suffix: str) -> None:
    """Raises ValueError for a suffix that is neither ``.svg`` nor ``.png``, and PricingError where matplotlib is not
    installed: to be asked before the work, which can be long."""
    if suffix not in (".svg", ".png"):
        raise ValueError(f"a chart is an .svg or a .png, not {suffix!r}")
    with drawing(salt=""):
        pass


def chart_of(backtest: Backtest, program: Program, suffix: str) -> bytes:
    """A row of panels for each currency; equal backtests give equal bytes.

    Raises PricingError for a backtest without a priced usage, and as ``require_chart`` does.
    """
    require_chart(suffix)
    if not backtest.totals:
        raise PricingError("there is nothing to draw: no usage was priced")
    with drawing(salt=program.digest) as new_figure:
        figure = new_figure(figsize=(12, 4 * len(backtest.totals)), layout="constrained")
        figure.suptitle(f"{program.id}: what the period would have brought")
        for row, currency in enumerate(sorted(backtest.totals)):
            _draw_days(figure.add_subplot(len(backtest.totals), 2, 2 * row + 1), backtest, currency)
            _draw_accounts(figure.add_subplot(len(backtest.totals), 2, 2 * row + 2), backtest, currency)
        image = BytesIO()
        figure.savefig(image, format=suffix[1:], metadata={"Date": None} if suffix == ".svg" else None)
    return image.getvalue()


def _draw_days(axes: Any, backtest: Backtest, currency: str) -> None:
    days = sorted(day for of, day in backtest.days if of == currency)
    revenues = [backtest.days[currency, day] for day in days]
    axes.plot(days, [_units(revenue.before) for revenue in revenues], marker=".", label="before")
    axes.plot(days, [_units(revenue.after) for revenue in revenues], marker=".", label="after")
    axes.set_ylabel(f"revenue a day, {currency}")
    axes.set_ylim(bottom=0)
    axes.tick_params(axis="x", rotation=45)
    axes.legend()


def _draw_accounts(axes: Any, backtest: Backtest, currency: str) -> None:
    losers, winners = (
        [(account, revenue.difference) for (of, account), revenue in accounts if of == currency][:ACCOUNTS]
        for accounts in (backtest.losers, backtest.winners)
    )
    shown = [*winners, *reversed(losers)]
    axes.barh([account for account, _ in shown], [_units(difference) for _, difference in shown])
    axes.set_xlabel(f"pays less or more, {currency}")


def _units(microcents: int) -> Decimal:
    """In the major unit of the currency."""
    return Decimal(exact_text(Fraction(microcents, MICROCENTS_PER_UNIT)))
