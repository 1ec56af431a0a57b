"""Whether a webhook is from Stripe: HMAC-SHA256 over its time and its bytes, by Stripe's published scheme v1.

Checked here and not by Stripe's library, because that asks the system's clock, and takes the body for text.
"""

import hashlib
import hmac
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from payments.errors import WebhookRefused

#: What was signed longer ago is refused, so that one that was overheard cannot be sent again. Stripe's own tolerance;
#: each of its attempts is signed anew.
TOLERANCE = timedelta(seconds=300)

_TIMESTAMP = re.compile(r"[0-9]{1,12}", re.ASCII)


def require_signature(header: str, body: bytes, secrets: Sequence[str], *, now: datetime) -> None:
    """Raises WebhookRefused unless the header has a signature of the body by one of the secrets, not too old.

    Several secrets are for the days in which one replaces another; without any, nothing is from Stripe.
    """
    parts = [part.partition("=")[::2] for part in header.split(",")]
    timestamp = next((value for name, value in parts if name == "t"), "")
    signatures = [value.encode(errors="replace") for name, value in parts if name == "v1"]
    if not _TIMESTAMP.fullmatch(timestamp):
        raise WebhookRefused("forged", "the header Stripe-Signature is missing or malformed")
    signed = timestamp.encode() + b"." + body
    expected = [hmac.digest(secret.encode(), signed, hashlib.sha256).hex().encode() for secret in secrets if secret]
    if not any(hmac.compare_digest(ours, theirs) for ours in expected for theirs in signatures):
        raise WebhookRefused("forged", "the signature is not of this body, or not by a secret of this endpoint")
    if int(timestamp) < (now.astimezone(UTC) - TOLERANCE).timestamp():
        raise WebhookRefused("stale", f"signed more than {TOLERANCE.seconds} seconds ago")
