"""What reconciliations show, in Prometheus' words."""

from prometheus_client import Gauge

OPEN_BREAKS = Gauge(
    "tollgate_reconciliation_open_breaks",
    "Differences between a provider's books and ours that nobody has resolved, as of each day's last reconciliation.",
    ["provider", "kind"],
    multiprocess_mode="livemax",
)
LAST_GOOD_RUN = Gauge(
    "tollgate_reconciliation_age_seconds",
    "Since a reconciliation with the provider came to its end.",
    ["provider"],
    multiprocess_mode="livemax",
)
