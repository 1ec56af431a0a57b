"""Creating, listing and deleting keys."""

from typing import Any

import asyncpg

from accounts import open_account
from ledger import Ledger, Microcents, PlaceHold, PriceRef, SettleHold, new_id
from tests.conftest import Clock

from .conftest import Api, Customer, Room, events_of, gather, sign_up

PRICE = PriceRef(program="chat", version=1, digest="0" * 64)


async def new_key(customer: Customer, **limits: Any) -> dict[str, Any]:
    answer = await customer.api.post("/v1/keys", {"name": "Production Key", **limits})
    assert answer.status == 201
    created: dict[str, Any] = answer.body
    return created


async def grant(customer: Customer, room: Room, cents: int) -> None:
    amount = Microcents(cents * 1_000_000)
    await room.operators.grant(
        customer.account_id, amount=amount, reason="test", granted_by="test", idempotency_key=new_id("grant")
    )


def hold(customer: Customer, key_id: str, cents: int) -> PlaceHold:
    return PlaceHold(
        stream_id=customer.account_id,
        hold_id=new_id("hold"),
        amount_microcents=Microcents(cents * 1_000_000),
        operation="chat.completions",
        model="qwen3-32b",
        price=PRICE,
        worker_id=1,
        lifetime_s=60,
        key_id=key_id,
    )


async def test_a_new_key_opens_its_account_and_is_shown_once(customer: Customer) -> None:
    created = await new_key(customer, rate_limit_rpm=120, monthly_budget_cents=500000)

    assert {
        "name": "Production Key",
        "rate_limit_rpm": 120,
        "monthly_budget_cents": 500000,
        "is_active": True,
        "created_at": "2026-11-21T12:00:00Z",
    }.items() <= created.items()
    assert created["key"].startswith("tg_")
    assert created["key"].startswith(created["key_prefix"])
    me = await customer.api.using(created["key"]).get("/v1/users/me")
    assert (me.status, me.body["id"]) == (200, customer.id)
    listed = (await customer.api.get("/v1/keys")).body
    assert created["key"] not in str(listed)


async def test_only_a_keyed_hash_of_the_secret_is_stored(customer: Customer, admin: asyncpg.Connection) -> None:
    created = await new_key(customer)

    dump = str([dict(row) for row in await admin.fetch("SELECT * FROM key_secrets")])
    events = str([dict(row) for row in await admin.fetch("SELECT * FROM events")])
    assert created["key"] not in dump + events
    assert created["key"][12:] not in dump + events


async def test_a_key_is_an_event_with_its_limits(customer: Customer, ledger: Ledger) -> None:
    created = await new_key(customer, rate_limit_rpm=5, monthly_budget_cents=0.5)

    [state] = await ledger.keys(customer.account_id)

    assert (state.key_id, state.rate_limit_rpm, state.monthly_budget) == (created["id"], 5, 500_000)


async def test_a_key_without_limits_is_unlimited(customer: Customer) -> None:
    created = await new_key(customer)

    assert (created["rate_limit_rpm"], created["monthly_budget_cents"]) == (None, None)


async def test_a_key_can_be_created_with_a_key(customer: Customer) -> None:
    first = await new_key(customer)

    second = await customer.api.using(first["key"]).post("/v1/keys", {"name": "Second"})

    assert second.status == 201
    names = [key["name"] for key in (await customer.api.get("/v1/keys")).body]
    assert names == ["Production Key", "Second"]


NOT_A_KEY = [
    ({}, "name"),
    ({"name": " "}, "name"),
    ({"name": "a\0b"}, "name"),
    ({"name": "k", "rate_limit_rpm": 0}, "rate_limit_rpm"),
    ({"name": "k", "rate_limit_rpm": 2**40}, "rate_limit_rpm"),
    ({"name": "k", "rate_limit_rpm": 1.5}, "rate_limit_rpm"),
    ({"name": "k", "monthly_budget_cents": -1}, "monthly_budget_cents"),
    ({"name": "k", "monthly_budget_cents": 0.0000001}, "monthly_budget_cents"),
    ({"name": "k", "monthly_budget_cents": 10**30}, "monthly_budget_cents"),
    ({"name": "k", "budget": 1}, "budget"),
]


async def test_what_is_not_a_key_is_refused_and_nothing_is_written(
    customer: Customer, admin: asyncpg.Connection
) -> None:
    for body, param in NOT_A_KEY:
        answer = await customer.api.post("/v1/keys", body)

        assert (answer.status, answer.code) == (400, "invalid_request")
        assert param in (answer.body["error"]["param"] or answer.body["error"]["message"])
        assert await events_of(admin, customer.account_id) == ["account.opened"]
        assert await admin.fetchval("SELECT count(*) FROM key_secrets") == 0


async def spend(customer: Customer, room: Room, key_id: str) -> None:
    """7.5 cents, through a hold of 10."""
    await grant(customer, room, 100)
    placed = hold(customer, key_id, 10)
    await room.ledger.submit(placed)
    amount = Microcents(7_500_000)
    await room.ledger.submit(
        SettleHold(stream_id=customer.account_id, hold_id=placed.hold_id, amount_microcents=amount, usage={})
    )


async def test_the_list_says_what_a_key_spent_this_month_and_when_it_was_used(customer: Customer, room: Room) -> None:
    key = await new_key(customer)
    await spend(customer, room, key["id"])

    [listed] = (await customer.api.get("/v1/keys")).body

    assert listed == {
        "id": key["id"],
        "key_prefix": key["key_prefix"],
        "name": "Production Key",
        "rate_limit_rpm": None,
        "monthly_budget_cents": None,
        "is_active": True,
        "created_at": "2026-11-21T12:00:00Z",
        "spent_this_month_cents": 7.5,
        "last_used_at": "2026-11-21T12:00:00Z",
    }


async def test_a_new_month_begins_with_nothing_spent(customer: Customer, room: Room, clock: Clock) -> None:
    key = await new_key(customer)
    await spend(customer, room, key["id"])

    clock.advance(days=10)

    [listed] = (await customer.api.using(key["key"]).get("/v1/keys")).body
    assert (listed["spent_this_month_cents"], listed["last_used_at"]) == (0, "2026-11-21T12:00:00Z")


async def test_a_deleted_key_is_refused_at_once_where_it_was_deleted(
    customer: Customer, admin: asyncpg.Connection
) -> None:
    key = await new_key(customer)
    assert (await customer.api.using(key["key"]).get("/v1/users/me")).status == 200

    deleted = await customer.api.delete(f"/v1/keys/{key['id']}")

    assert (deleted.status, deleted.body) == (204, None)
    after = await customer.api.using(key["key"]).get("/v1/users/me")
    assert (after.status, after.code) == (401, "unauthorized")
    assert [listed["is_active"] for listed in (await customer.api.get("/v1/keys")).body] == [False]
    assert await events_of(admin, customer.account_id) == ["account.opened", "key.created", "key.deleted"]


async def test_a_deleted_key_is_refused_within_a_second_by_every_other_worker(
    customer: Customer, other_worker: Api, clock: Clock
) -> None:
    key = await new_key(customer)
    elsewhere = other_worker.using(key["key"])
    assert (await elsewhere.get("/v1/users/me")).status == 200
    await customer.api.delete(f"/v1/keys/{key['id']}")

    clock.advance(seconds=1)

    assert (await elsewhere.get("/v1/users/me")).status == 401


async def test_a_key_can_delete_itself(customer: Customer) -> None:
    key = await new_key(customer)

    deleted = await customer.api.using(key["key"]).delete(f"/v1/keys/{key['id']}")

    assert deleted.status == 204
    assert (await customer.api.using(key["key"]).get("/v1/keys")).status == 401


NO_KEY = ["key_unknown", "key_%00", "%ff", "x" * 300, "%E4%BD%A0"]


async def test_a_key_that_does_not_exist_is_not_found(customer: Customer) -> None:
    for key_id in NO_KEY:
        answer = await customer.api.delete(f"/v1/keys/{key_id}")

        assert (answer.status, answer.code) == (404, "not_found")


async def test_another_accounts_key_does_not_exist(api: Api, room: Room, customer: Customer) -> None:
    key = await new_key(customer)
    other = await sign_up(api, room)

    answer = await other.api.delete(f"/v1/keys/{key['id']}")

    assert (answer.status, answer.code) == (404, "not_found")
    assert (await customer.api.using(key["key"]).get("/v1/users/me")).status == 200
    assert (await other.api.get("/v1/keys")).body == []


async def test_a_key_that_was_deleted_before_is_not_found(customer: Customer, admin: asyncpg.Connection) -> None:
    key = await new_key(customer)
    await customer.api.delete(f"/v1/keys/{key['id']}")

    again = await customer.api.delete(f"/v1/keys/{key['id']}")

    assert (again.status, again.code) == (404, "not_found")
    assert (await events_of(admin, customer.account_id)).count("key.deleted") == 1


async def test_a_key_deleted_twenty_times_at_once_is_deleted_once(
    customer: Customer, admin: asyncpg.Connection
) -> None:
    key = await new_key(customer)

    answers = await gather(*(customer.api.delete(f"/v1/keys/{key['id']}") for _ in range(20)))

    assert {answer.status for answer in answers} <= {204, 404}
    assert any(answer.status == 204 for answer in answers)
    assert (await events_of(admin, customer.account_id)).count("key.deleted") == 1


async def test_a_secret_without_its_event_opens_nothing(
    customer: Customer, admin: asyncpg.Connection, room: Room
) -> None:
    """What a crash between the two writes of a creation leaves."""
    key = await new_key(customer)
    await admin.execute("UPDATE key_secrets SET key_id = 'key_without_event' WHERE key_id = $1", key["id"])

    answer = await customer.api.using(key["key"]).get("/v1/users/me")

    assert answer.status == 401


async def test_a_key_of_an_account_without_a_user_shows_the_balance(api: Api, room: Room, ledger: Ledger) -> None:
    account = await open_account(ledger, currency="EUR")
    key = await room.keys.create(
        account.account_id, user_id=None, name="machine", rate_limit_rpm=None, monthly_budget=None
    )

    me = await api.using(key.secret).get("/v1/users/me")

    assert (me.status, me.body["id"], me.body["currency"]) == (200, None, "EUR")


async def test_a_key_outlives_the_user_who_made_it(customer: Customer, admin: asyncpg.Connection) -> None:
    """Erasing a person must not stop what their account pays for, and leaves nothing of them."""
    key = await new_key(customer)

    await admin.execute("DELETE FROM users WHERE id = $1", customer.id)

    me = await customer.api.using(key["key"]).get("/v1/users/me")
    assert (me.status, me.body["id"], me.body["account_id"]) == (200, None, customer.account_id)
    assert await admin.fetchval("SELECT count(*) FROM sessions WHERE user_id = $1", customer.id) == 0


async def test_a_service_token_has_no_keys(api: Api, room: Room) -> None:
    token = api.using((await room.service_tokens.create(name="job", role="admin")).secret)

    assert (await token.get("/v1/keys")).code == "forbidden"
    assert (await token.post("/v1/keys", {"name": "k"})).code == "forbidden"
    assert (await token.delete("/v1/keys/key_1")).code == "forbidden"
