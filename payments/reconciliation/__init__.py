"""Whether a provider's books and ours say the same: each line of theirs held against ours, and what is left over.

``lines.py`` is what both sides are brought to, ``matching.py`` the comparison, which is pure. ``ledger_lines.py``
reads our side; the other side is a ``Source``, which each provider's package has. ``reconciler.py`` puts one run
together, ``daily.py`` has it done for every day, once, and ``reports.py`` is what finance reads.
"""

from payments.reconciliation.daily import DailyReconciliation, DayRun
from payments.reconciliation.lines import Line, Period, Source, Statement, days_of
from payments.reconciliation.matching import Item
from payments.reconciliation.reconciler import Reconciler
from payments.reconciliation.reports import COLUMNS, Report, amount_text, as_csv, as_json, rows_of

__all__ = [
    "COLUMNS",
    "DailyReconciliation",
    "DayRun",
    "Item",
    "Line",
    "Period",
    "Reconciler",
    "Report",
    "Source",
    "Statement",
    "amount_text",
    "as_csv",
    "as_json",
    "days_of",
    "rows_of",
]
