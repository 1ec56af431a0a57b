"""Secrets are sealed so that only their server opens them, and sign as the library of Standard Webhooks expects."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from notices import SecretUnreadable, SigningSecrets
from notices.signing import signed_headers

OURS, ANOTHER = SigningSecrets(b"1" * 32), SigningSecrets(b"2" * 32)


def test_a_sealed_secret_is_opened_by_the_same_server_secret_only() -> None:
    secret = OURS.make()
    sealed = OURS.seal(secret)

    assert OURS.open(sealed) == secret
    assert SigningSecrets(b"1" * 32).open(sealed) == secret
    assert OURS.seal(secret) != sealed
    for broken in (sealed[:-1], sealed[1:], b"", b"x" * 100):
        with pytest.raises(SecretUnreadable):
            OURS.open(broken)
    with pytest.raises(SecretUnreadable):
        ANOTHER.open(sealed)


@given(body=st.text(st.characters(exclude_categories=("Cs",))))
def test_a_body_verifies_by_each_secret_it_is_signed_with_and_by_no_other(body: str) -> None:
    new, former, unknown = (OURS.make() for _ in range(3))

    headers = signed_headers("msg_1", body, datetime.now(UTC), [new, former])

    for secret in (new, former):
        Webhook(secret).verify(body, headers, json_parse=False)
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body + " ", headers, json_parse=False)
    with pytest.raises(WebhookVerificationError):
        Webhook(unknown).verify(body, headers, json_parse=False)
