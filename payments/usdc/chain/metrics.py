"""What is counted of chains, in Prometheus' words."""

from prometheus_client import Counter, Gauge

HEAD = Gauge("tollgate_usdc_head_block", "The newest block that was seen.", ["chain"], multiprocess_mode="max")
UNREAD = Gauge(
    "tollgate_usdc_unread_blocks",
    "Blocks that count and were not read yet.",
    ["chain"],
    multiprocess_mode="mostrecent",
)
LOOKED_AT = Gauge(
    "tollgate_usdc_looked_at_seconds",
    "When the chain was looked at last, in seconds since 1970.",
    ["chain"],
    multiprocess_mode="max",
)
OPEN_DEPOSITS = Gauge(
    "tollgate_usdc_open_deposits",
    "Deposits of which something is left to book.",
    ["chain"],
    multiprocess_mode="mostrecent",
)
REORGANISATIONS = Counter(
    "tollgate_usdc_reorganisations_total",
    "Deposits whose block left the chain, by what was booked of them before: pending, or credited.",
    ["chain", "before"],
)
NODE_FAILURES = Counter(
    "tollgate_usdc_node_failures_total",
    "Nodes that were not believed: unavailable, range, lagging, wrong_chain, wrong_token, senseless, contradicts.",
    ["chain", "node", "reason"],
)
