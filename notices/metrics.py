"""What notices count, in Prometheus' words."""

from prometheus_client import Counter, Gauge

MADE = Counter("tollgate_notices_made_total", "Notices written to the outbox.", ["type"])
ATTEMPTS = Counter(
    "tollgate_notice_attempts_total",
    "Deliveries by what became of them: delivered, postponed, given_up, or gone (the receiver wants no more).",
    ["result"],
)
DISABLED = Counter("tollgate_webhook_endpoints_disabled_total", "Endpoints disabled because of what they answered.")
WAITING = Gauge("tollgate_notices_waiting", "Notices that are not delivered yet.", multiprocess_mode="livemax")
OLDEST = Gauge(
    "tollgate_notices_waiting_seconds", "Age of what the oldest of them tells of.", multiprocess_mode="livemax"
)
