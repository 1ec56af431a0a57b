"""What the gate counts. In Prometheus' words; one process of many adds to the same files, see ``tollgate.metrics``."""

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("tollgate_requests_total", "Metered requests by how they ended.", ["operation", "outcome"])
DURATION = Histogram(
    "tollgate_request_seconds",
    "From the request's first byte to the answer's last.",
    ["operation"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300),
)
HOLDS = Counter("tollgate_holds_total", "Holds by how they ended: placed, settled, voided.", ["end"])
OVERRUNS = Counter("tollgate_overruns_total", "Settlements above their hold: a bound was wrong.", ["model"])
UNREADABLE_USAGE = Counter("tollgate_unreadable_usage_total", "Answers whose usage made no sense.", ["backend"])
UNKNOWN_METERS = Counter("tollgate_unknown_meters_total", "Usage that the price program does not read.", ["meter"])
BACKEND_FAILURES = Counter("tollgate_backend_failures_total", "Failed attempts by backend.", ["backend"])
IN_FLIGHT = Gauge("tollgate_requests_in_flight", "Metered requests being served.", multiprocess_mode="livesum")
