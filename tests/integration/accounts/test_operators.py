"""Grants, adjustments and the view of an account, over HTTP."""

from typing import Any, get_args

import asyncpg
import pytest

from accounts import Role
from ledger import Ledger, RecordPriceEvent
from ledger.events import ProgramRetired
from ledger.grants import grant_id_of
from tests.conftest import Clock

from .conftest import Api, Customer, Room, events_of, gather, sign_up
from .test_keys import hold, new_key


def grant_of(customer: Customer, **changes: Any) -> dict[str, Any]:
    return {"account_id": customer.account_id, "amount_cents": 1000, "reason": "welcome"} | changes


async def test_a_grant_adds_credit_and_answers_with_its_event(customer: Customer, operator: Customer) -> None:
    answer = await operator.api.post("/v1/admin/grants", grant_of(customer, amount_cents=12.5), Idempotency_Key="g")

    assert answer.status == 201
    assert answer.body.pop("position") > 0
    assert answer.body == {
        "account_id": customer.account_id,
        "seq": 2,
        "at": "2026-11-21T12:00:00Z",
        "amount_cents": 12.5,
        "currency": "USD",
        "reason": "welcome",
        "balance_cents": 12.5,
        "grant_id": grant_id_of(customer.account_id, "g"),
        "expires_at": None,
        "priority": 50,
    }


async def test_a_grant_has_terms_which_its_customer_sees_until_it_expires(
    customer: Customer, operator: Customer, clock: Clock
) -> None:
    terms = {"expires_at": "2026-11-21T14:00:00+01:00", "priority": 7}
    later = grant_of(customer, amount_cents=1)

    answer = await operator.api.post("/v1/admin/grants", grant_of(customer, **terms), Idempotency_Key="g")
    again = await operator.api.post("/v1/admin/grants", grant_of(customer, **terms), Idempotency_Key="g")
    await operator.api.post("/v1/admin/grants", later, Idempotency_Key="later")
    me = await customer.api.get("/v1/users/me")
    clock.advance(hours=1)
    after = await customer.api.get("/v1/users/me")

    assert (answer.status, answer.body) == (201, again.body)
    assert (answer.body["expires_at"], answer.body["priority"]) == ("2026-11-21T13:00:00Z", 7)
    first, second = me.body["credit_grants"]
    assert first == {
        "id": answer.body["grant_id"], "left_cents": 1000, "expires_at": "2026-11-21T13:00:00Z", "priority": 7,
    }  # fmt: skip
    assert (me.body["available_cents"], after.body["available_cents"]) == (1001, 1)
    assert after.body["credit_grants"] == [second]


@pytest.mark.parametrize(
    "terms",
    [
        {"expires_at": "2026-11-21T12:00:00Z"},
        {"expires_at": "2027-01-01"},
        {"expires_at": "2027-01-01T00:00:00"},
        {"expires_at": 1893456000},
        {"expires_at": "9999-12-31T23:59:59-14:00"},
        {"priority": -1},
        {"priority": 101},
        {"priority": 1.5},
        {"priority": None},
    ],
)
async def test_a_grant_whose_terms_cannot_be_kept_is_refused(
    customer: Customer, operator: Customer, admin: asyncpg.Connection, terms: dict[str, Any]
) -> None:
    answer = await operator.api.post("/v1/admin/grants", grant_of(customer, **terms), Idempotency_Key="g")

    assert (answer.status, answer.code) == (400, "invalid_request")
    assert await events_of(admin, customer.account_id) == ["account.opened"]


async def test_a_grant_names_who_gave_it(customer: Customer, operator: Customer, admin: asyncpg.Connection) -> None:
    await operator.api.post("/v1/admin/grants", grant_of(customer), Idempotency_Key="g")

    by = await admin.fetchval("SELECT payload ->> 'granted_by' FROM events WHERE type = 'credit.granted'")
    assert by == operator.id


async def test_a_repeated_grant_gets_the_same_answer_and_adds_nothing(
    customer: Customer, operator: Customer, admin: asyncpg.Connection, clock: Clock
) -> None:
    first = await operator.api.post("/v1/admin/grants", grant_of(customer), Idempotency_Key="g")
    clock.advance(minutes=5)
    await operator.api.post("/v1/admin/grants", grant_of(customer), Idempotency_Key="another")

    again = await operator.api.post("/v1/admin/grants", grant_of(customer), Idempotency_Key="g")

    assert (again.status, again.body) == (201, first.body)
    assert (await events_of(admin, customer.account_id)).count("credit.granted") == 2


async def test_twenty_grants_at_once_with_one_idempotency_key_are_one_event(
    customer: Customer, operator: Customer, other_worker: Api, admin: asyncpg.Connection
) -> None:
    workers = [operator.api, other_worker.using(operator.api.secret)]

    answers = await gather(
        *(workers[n % 2].post("/v1/admin/grants", grant_of(customer), Idempotency_Key="g") for n in range(20))
    )

    assert [answer.status for answer in answers] == [201] * 20
    assert all(answer.body == answers[0].body for answer in answers)
    assert await events_of(admin, customer.account_id) == ["account.opened", "credit.granted"]


async def test_an_idempotency_key_used_for_another_grant_is_refused(
    customer: Customer, operator: Customer, admin: asyncpg.Connection
) -> None:
    await operator.api.post("/v1/admin/grants", grant_of(customer), Idempotency_Key="g")

    for change in ({"amount_cents": 1001}, {"reason": "goodbye"}):
        answer = await operator.api.post("/v1/admin/grants", grant_of(customer, **change), Idempotency_Key="g")

        assert (answer.status, answer.code) == (409, "idempotency_mismatch")
    assert (await events_of(admin, customer.account_id)).count("credit.granted") == 1


async def test_an_idempotency_key_is_bound_over_all_accounts(
    api: Api, room: Room, customer: Customer, operator: Customer, admin: asyncpg.Connection
) -> None:
    other = await sign_up(api, room)
    await operator.api.post("/v1/admin/grants", grant_of(customer), Idempotency_Key="g")

    answer = await operator.api.post("/v1/admin/grants", grant_of(other), Idempotency_Key="g")

    assert (answer.status, answer.code) == (409, "idempotency_mismatch")
    assert await events_of(admin, other.account_id) == ["account.opened"]


async def test_an_idempotency_key_is_bound_over_grants_and_adjustments(customer: Customer, operator: Customer) -> None:
    await operator.api.post("/v1/admin/grants", grant_of(customer), Idempotency_Key="g")

    answer = await operator.api.post("/v1/admin/adjustments", grant_of(customer), Idempotency_Key="g")

    assert (answer.status, answer.code) == (409, "idempotency_mismatch")


async def test_of_twenty_different_grants_at_once_with_one_idempotency_key_one_wins(
    customer: Customer, operator: Customer, admin: asyncpg.Connection
) -> None:
    answers = await gather(
        *(
            operator.api.post("/v1/admin/grants", grant_of(customer, amount_cents=n), Idempotency_Key="g")
            for n in range(1, 21)
        )
    )

    assert sorted(answer.status for answer in answers) == [201] + [409] * 19
    assert (await events_of(admin, customer.account_id)).count("credit.granted") == 1


NO_IDEMPOTENCY_KEY = [None, "", "two words", "ä", "k" * 256]


async def test_a_grant_without_a_proper_idempotency_key_is_refused(
    customer: Customer, operator: Customer, admin: asyncpg.Connection
) -> None:
    for key in NO_IDEMPOTENCY_KEY:
        headers = {} if key is None else {"Idempotency_Key": key}

        answer = await operator.api.post("/v1/admin/grants", grant_of(customer), **headers)

        assert (answer.status, answer.body["error"]["param"]) == (400, "Idempotency-Key")
    assert await events_of(admin, customer.account_id) == ["account.opened"]


NOT_A_GRANT = [
    ({"amount_cents": 0}, "amount_cents"),
    ({"amount_cents": -5}, "amount_cents"),
    ({"amount_cents": 0.0000001}, "amount_cents"),
    ({"amount_cents": 10**15}, "amount_cents"),
    ({"amount_cents": "NaN"}, "amount_cents"),
    ({"amount_cents": None}, "amount_cents"),
    ({"amount_cents": True}, "amount_cents"),
    ({"reason": ""}, "reason"),
    ({"reason": "nul\0"}, "reason"),
    ({"account_id": "acct_\0"}, "account_id"),
    ({"account_id": 7}, "account_id"),
    ({"note": "unknown field"}, "note"),
]


async def test_what_is_not_a_grant_is_refused_and_nothing_is_written(
    customer: Customer, operator: Customer, admin: asyncpg.Connection
) -> None:
    for change, param in NOT_A_GRANT:
        answer = await operator.api.post("/v1/admin/grants", grant_of(customer, **change), Idempotency_Key="g")

        assert (answer.status, answer.code) == (400, "invalid_request")
        assert param in (answer.body["error"]["param"] or answer.body["error"]["message"])
    assert await events_of(admin, customer.account_id) == ["account.opened"]
    assert await admin.fetchval("SELECT count(*) FROM operator_requests") == 0


async def test_a_grant_to_no_account_is_not_found_and_leaves_its_key_unused(
    customer: Customer, operator: Customer, ledger: Ledger, clock: Clock
) -> None:
    """The price book is a stream of the log as well, and no account."""
    fact = ProgramRetired(program="p", version=1, effective_from=clock(), retired_by="test")
    await ledger.submit(RecordPriceEvent(stream_id="prices", event=fact, idempotency_key="p"))

    for account_id in ("acct_unknown", "prices", "", "key_1"):
        answer = await operator.api.post(
            "/v1/admin/grants", grant_of(customer, account_id=account_id), Idempotency_Key="g"
        )

        assert (answer.status, answer.code) == (404, "not_found")
    assert (await operator.api.post("/v1/admin/grants", grant_of(customer), Idempotency_Key="g")).status == 201


async def test_an_adjustment_goes_up_and_down(customer: Customer, operator: Customer) -> None:
    up = await operator.api.post(
        "/v1/admin/adjustments", grant_of(customer, amount_cents=10, reason="found"), Idempotency_Key="a"
    )
    down = await operator.api.post(
        "/v1/admin/adjustments", grant_of(customer, amount_cents=-2.5, reason="lost"), Idempotency_Key="b"
    )

    assert [(a.status, a.body["amount_cents"], a.body["balance_cents"]) for a in (up, down)] == [
        (201, 10, 10),
        (201, -2.5, 7.5),
    ]


async def test_an_adjustment_below_what_is_available_is_refused(
    customer: Customer, operator: Customer, admin: asyncpg.Connection
) -> None:
    answer = await operator.api.post("/v1/admin/adjustments", grant_of(customer, amount_cents=-1), Idempotency_Key="a")

    assert answer.status == 402
    assert await events_of(admin, customer.account_id) == ["account.opened"]


async def test_an_adjustment_of_nothing_is_refused(customer: Customer, operator: Customer) -> None:
    answer = await operator.api.post("/v1/admin/adjustments", grant_of(customer, amount_cents=0), Idempotency_Key="a")

    assert (answer.status, answer.body["error"]["param"]) == (400, "amount_cents")


async def test_who_may_do_what(api: Api, room: Room, customer: Customer) -> None:
    """Rows: who asks; granting, adjusting, looking. A key of an admin is a customer's key."""
    admin = await sign_up(api, room, role="admin")
    admins_key = (await new_key(admin))["key"]
    tokens = {role: (await room.service_tokens.create(name=role, role=role)).secret for role in get_args(Role)}
    finance = (await sign_up(api, room, role="finance")).api.secret
    expected = {
        None: (401, 401, 401),
        customer.api.secret: (403, 403, 403),
        admins_key: (403, 403, 403),
        finance: (403, 403, 200),
        admin.api.secret: (201, 201, 200),
        tokens["customer"]: (403, 403, 403),
        tokens["finance"]: (403, 403, 200),
        tokens["admin"]: (201, 201, 200),
    }

    for n, (secret, statuses) in enumerate(expected.items()):
        caller = api.using(secret)
        granted = await caller.post("/v1/admin/grants", grant_of(customer), Idempotency_Key=f"g{n}")
        adjusted = await caller.post("/v1/admin/adjustments", grant_of(customer), Idempotency_Key=f"a{n}")
        seen = await caller.get(f"/v1/admin/accounts/{customer.account_id}")
        assert (n, granted.status, adjusted.status, seen.status) == (n, *statuses)


async def test_an_account_shows_its_money_its_open_holds_and_its_keys(
    customer: Customer, operator: Customer, ledger: Ledger
) -> None:
    key = await new_key(customer)
    await operator.api.post("/v1/admin/grants", grant_of(customer), Idempotency_Key="g")
    placed = hold(customer, key["id"], 30)
    await ledger.submit(placed)

    answer = await operator.api.get(f"/v1/admin/accounts/{customer.account_id}")

    [listed_key] = answer.body.pop("keys")
    assert (listed_key["id"], listed_key["name"]) == (key["id"], "Production Key")
    assert answer.body == {
        "account_id": customer.account_id,
        "currency": "USD",
        "plan": None,
        "as_of": None,
        "credited_cents": 1000,
        "spent_cents": 0,
        "posted_cents": 1000,
        "held_cents": 30,
        "available_cents": 970,
        "debt_cents": 0,
        "refundable_cents": 0,
        "credit_grants": [
            {"id": grant_id_of(customer.account_id, "g"), "left_cents": 1000, "expires_at": None, "priority": 50}
        ],
        "open_holds": [
            {
                "id": placed.hold_id,
                "key_id": key["id"],
                "held_cents": 30,
                "drawn_cents": 0,
                "operation": "chat.completions",
                "model": "qwen3-32b",
                "request_id": None,
                "placed_at": "2026-11-21T12:00:00Z",
                "expires_at": "2026-11-21T12:01:00Z",
            }
        ],
    }


async def test_an_account_shows_its_balance_as_of_any_moment(
    customer: Customer, operator: Customer, clock: Clock
) -> None:
    await operator.api.post("/v1/admin/grants", grant_of(customer), Idempotency_Key="g")
    clock.advance(hours=1)
    await operator.api.post("/v1/admin/grants", grant_of(customer), Idempotency_Key="h")
    path = f"/v1/admin/accounts/{customer.account_id}?as_of="

    before = await operator.api.get(path + "2026-11-21T11:59:59Z")
    between = await operator.api.get(path + "2026-11-21T14:59:59.999999%2B02:00")
    now = await operator.api.get(path + "2026-11-21T13:00:00Z")

    assert before.body == {
        "account_id": customer.account_id,
        "currency": "USD",
        "as_of": "2026-11-21T11:59:59Z",
        "posted_cents": 0,
        "held_cents": 0,
        "available_cents": 0,
    }
    assert [answer.body["posted_cents"] for answer in (between, now)] == [1000, 2000]


async def test_an_account_changes_its_plan_once_for_each_key_and_goes_back_to_the_list(
    customer: Customer, operator: Customer
) -> None:
    path = "/v1/admin/plans"
    body = {"account_id": customer.account_id, "plan": "pro"}

    first = await operator.api.post(path, body, Idempotency_Key="p")
    again = await operator.api.post(path, body, Idempotency_Key="p")
    other = await operator.api.post(path, body | {"plan": None}, Idempotency_Key="p")
    seen = await operator.api.get(f"/v1/admin/accounts/{customer.account_id}")
    back = await operator.api.post(path, body | {"plan": None}, Idempotency_Key="q")

    assert (first.status, first.body["plan"], again.body) == (201, "pro", first.body)
    assert (other.status, seen.body["plan"]) == (409, "pro")
    assert (back.status, back.body["plan"], back.body["seq"]) == (201, None, first.body["seq"] + 1)


@pytest.mark.parametrize("body", [{"plan": ""}, {"plan": 5}, {}, {"plan": "x" * 201}, {"plan": "a\nb"}])
async def test_what_is_no_plan_is_refused(customer: Customer, operator: Customer, body: dict[str, Any]) -> None:
    body = {"account_id": customer.account_id, **body}

    assert (await operator.api.post("/v1/admin/plans", body, Idempotency_Key="p")).status == 400


NO_MOMENT = ["yesterday", "2026-11-21T12:00:00", "0001-01-01T00:00:00%2B14:00", "", "2026"]


async def test_an_as_of_that_is_no_moment_is_refused(customer: Customer, operator: Customer) -> None:
    for as_of in NO_MOMENT:
        answer = await operator.api.get(f"/v1/admin/accounts/{customer.account_id}?as_of={as_of}")

        assert (answer.status, answer.body["error"]["param"]) == (400, "as_of")


NO_ACCOUNT = ["acct_unknown", "acct_%00", "%ff", "prices", "acct_" + "x" * 200]


async def test_an_account_that_was_never_opened_is_not_found(operator: Customer) -> None:
    for account_id in NO_ACCOUNT:
        answer = await operator.api.get(f"/v1/admin/accounts/{account_id}")

        assert (answer.status, answer.code) == (404, "not_found")
