"""What payments count, in Prometheus' words."""

from prometheus_client import Counter

NOTIFICATIONS = Counter(
    "tollgate_payment_notifications_total",
    "Webhooks by what became of them: stored, repeated, or refused as forged, stale, too_large, unreadable.",
    ["provider", "result"],
)
BREAKS = Counter(
    "tollgate_payment_breaks_total",
    "Notifications that do not fit the books. Nothing was booked for them; a person has to look.",
    ["provider", "reason"],
)
AUTOMATIC_TOPUPS = Counter(
    "tollgate_automatic_topups_total",
    "Top-ups that nobody asked for: requested, failed; and paused, when a card was declined too often.",
    ["result"],
)
