"""What the headers of a request say of how it is to be served."""

from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from accounts import Principal
from inference_proxy.operations import CHAT_COMPLETIONS
from inference_proxy.orders import Order, read_order
from wire import ApiError

pytestmark = pytest.mark.filterwarnings("ignore::aiohttp.web.NotAppKeyWarning")  # the application's own way

KEY = Principal(kind="key", id="key_1", role="customer", account_id="acct_1", user_id=None, key_id="key_1")


def order(headers: dict[str, str] | None = None, *, body: bytes = b"{}", principal: Principal = KEY) -> Order:
    request = make_mocked_request("POST", CHAT_COMPLETIONS.path, headers=headers or {})
    request["request_id"] = "req_1"
    return read_order(CHAT_COMPLETIONS, principal, body, request)


def refusal(headers: dict[str, str]) -> ApiError:
    with pytest.raises(ApiError) as refused:
        order(headers)
    return refused.value


def test_without_headers_a_request_may_cost_what_it_can_and_is_a_first_try() -> None:
    plain = order()

    assert (plain.idempotency_key, plain.max_cost, plain.retry_count) == (None, None, 0)
    assert (plain.account_id, plain.key_id, plain.request_id) == ("acct_1", "key_1", "req_1")


def test_every_order_has_a_hold_of_its_own() -> None:
    assert order().hold_id != order().hold_id


def test_who_has_no_account_orders_nothing() -> None:
    token = Principal(kind="service", id="svc_1", role="admin", account_id=None, user_id=None, key_id=None)

    with pytest.raises(ApiError) as refused:
        order(principal=token)
    assert refused.value.code == "forbidden"


@pytest.mark.parametrize(
    ("text", "microcents"), [("0", 0), ("1", 1_000_000), ("0.000001", 1), ("12.5", 12_500_000), ("1e1", 10_000_000)]
)
def test_the_most_that_it_may_cost_is_exact(text: str, microcents: int) -> None:
    assert order({"x-tollgate-max-cost": text}).max_cost == microcents


@pytest.mark.parametrize("text", ["", "-1", "-0.000001", "much", "NaN", "Infinity", "1e99", "0.0000001", "1,5"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    refused = refusal({"x-tollgate-max-cost": text})

    assert (refused.code, refused.param) == ("invalid_request", "x-tollgate-max-cost")


@pytest.mark.parametrize(
    ("text", "count"), [("0", 0), ("2", 2), ("9999", 9999), ("10000", 0), ("-1", 0), ("x", 0), ("", 0), ("1.0", 0)]
)
def test_the_clients_count_of_its_tries_is_read_where_it_is_one(text: str, count: int) -> None:
    assert order({"x-stainless-retry-count": text}).retry_count == count


@pytest.mark.parametrize("key", ["k", "x" * 255, "a-b_c:d/e", "~!"])
def test_an_idempotency_key_is_visible_text(key: str) -> None:
    assert order({"Idempotency-Key": key}).idempotency_key == key


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "ü", "a\tb"])
def test_any_other_idempotency_key_is_refused(key: str) -> None:
    refused = refusal({"Idempotency-Key": key})

    assert (refused.code, refused.param) == ("invalid_request", "idempotency-key")


def test_a_fingerprint_is_of_the_body_to_the_byte() -> None:
    fingerprints: dict[bytes, Any] = {order(body=body).fingerprint: body for body in (b"{}", b"{} ", b'{"a":1}')}

    assert len(fingerprints) == 3
    assert order(body=b"{}").fingerprint == order(body=b"{}").fingerprint
