"""A signature is believed when Stripe's own library would have made it, and in no other case."""

from datetime import UTC, datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from stripe import WebhookSignature

from payments.errors import WebhookRefused
from payments.stripe.signatures import TOLERANCE, require_signature

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
AT = int(NOW.timestamp())
SECRETS = ("whsec_new", "whsec_old")

bodies = st.text(max_size=200)


def header_of(body: str, secret: str = SECRETS[0], at: int = AT) -> str:
    header: str = WebhookSignature.generate_signature_header(body, secret, at)  # type: ignore[no-untyped-call]
    return header


def refusal(header: str, body: bytes, secrets: tuple[str, ...] = SECRETS) -> str | None:
    try:
        require_signature(header, body, secrets, now=NOW)
    except WebhookRefused as refused:
        return refused.reason
    return None


@given(bodies, st.sampled_from(SECRETS), st.integers(0, int(TOLERANCE.total_seconds())))
def test_what_the_library_signs_with_any_of_our_secrets_is_believed(body: str, secret: str, age_s: int) -> None:
    assert refusal(header_of(body, secret, AT - age_s), body.encode()) is None


@given(bodies, st.binary(max_size=200))
def test_a_signature_of_another_body_is_forged(body: str, other: bytes) -> None:
    assume(other != body.encode())

    assert refusal(header_of(body), other) == "forged"


@given(bodies, st.text(max_size=30))
def test_a_signature_by_another_secret_is_forged(body: str, secret: str) -> None:
    assume(secret not in SECRETS)

    assert refusal(header_of(body, secret), body.encode()) == "forged"


@given(st.text(max_size=300), st.binary(max_size=50))
def test_no_header_that_somebody_makes_up_is_believed_or_breaks_anything(header: str, body: bytes) -> None:
    assert refusal(header, body) == "forged"


@given(bodies, st.integers(1, AT))
def test_a_true_signature_that_is_too_old_is_stale(body: str, too_old_by_s: int) -> None:
    at = AT - int(TOLERANCE.total_seconds()) - too_old_by_s
    assume(at >= 0)

    assert refusal(header_of(body, at=at), body.encode()) == "stale"


@given(bodies, st.integers(1, 10**6))
def test_a_signature_does_not_get_younger_by_another_time_in_its_header(body: str, older_s: int) -> None:
    _, signature = header_of(body, at=AT - older_s).split(",")

    assert refusal(f"t={AT},{signature}", body.encode()) == "forged"


@pytest.mark.money_bug(48)
@pytest.mark.parametrize("secrets", [(), ("",)])
def test_without_a_secret_nothing_is_believed(secrets: tuple[str, ...]) -> None:
    assert refusal(header_of("{}", ""), b"{}", secrets) == "forged"


def test_any_of_several_signatures_is_enough() -> None:
    header = header_of("{}")

    assert refusal(header.replace("v1=", f"v0=0,v1={'0' * 64},v1="), b"{}") is None
    assert refusal(header.replace("v1=", "v0="), b"{}") == "forged"
