"""The ids of top-ups that are asked for more than once."""

import hashlib


def topup_id_of(account_id: str, idempotency_key: str) -> str:
    """One top-up for each key of an account; the same again when the request is."""
    return "topup_" + hashlib.sha256(f"{account_id}\0{idempotency_key}".encode()).hexdigest()[:26]
