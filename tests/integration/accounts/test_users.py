"""Registering, logging in, and who one is."""

from typing import Any

import asyncpg
from argon2 import PasswordHasher

from .conftest import PASSWORD, Api, Customer, Room, events_of, gather, sign_up, unique_email


def new_user(email: str) -> dict[str, Any]:
    return {"email": email, "name": "BatchIn Team", "password": PASSWORD}


async def users_with(admin: asyncpg.Connection, email: str) -> int:
    return int(await admin.fetchval("SELECT count(*) FROM users WHERE lower(email) = lower($1)", email))


async def test_a_new_user_has_an_account_of_their_own_with_nothing_on_it(api: Api, admin: asyncpg.Connection) -> None:
    email = unique_email()

    answer = await api.post("/v1/users", new_user(email))

    assert answer.status == 201
    assert answer.body["id"].startswith("user_")
    assert {
        "email": email,
        "name": "BatchIn Team",
        "role": "customer",
        "currency": "USD",
        "credit_balance_cents": 0,
        "held_cents": 0,
        "available_cents": 0,
    }.items() <= answer.body.items()
    assert await events_of(admin, answer.body["account_id"]) == ["account.opened"]


async def test_the_password_is_kept_as_argon2id_only(api: Api, admin: asyncpg.Connection) -> None:
    email = unique_email()

    await api.post("/v1/users", new_user(email))

    row = await admin.fetchrow("SELECT * FROM users WHERE email = $1", email)
    assert row["password_hash"].startswith("$argon2id$")
    assert PASSWORD not in str(dict(row))


async def test_a_taken_address_is_a_conflict_in_whatever_case(api: Api, admin: asyncpg.Connection) -> None:
    email = unique_email()
    await api.post("/v1/users", new_user(email))
    before = await admin.fetchval("SELECT count(*) FROM events")

    answer = await api.post("/v1/users", new_user(email.upper()))

    assert (answer.status, answer.code) == (409, "conflict")
    assert await users_with(admin, email) == 1
    assert await admin.fetchval("SELECT count(*) FROM events") == before


async def test_of_twenty_registrations_at_once_of_one_address_one_wins(api: Api, admin: asyncpg.Connection) -> None:
    email = unique_email()

    answers = await gather(*(api.post("/v1/users", new_user(email)) for _ in range(20)))

    assert sorted(answer.status for answer in answers) == [201] + [409] * 19
    assert await users_with(admin, email) == 1


NOT_A_REGISTRATION = [
    ({"email": "no address"}, "email"),
    ({"email": "two@at@example.com"}, "email"),
    ({"email": "line@example.com\n"}, "email"),
    ({"email": "a" * 250 + "@example.com"}, "email"),
    ({"name": ""}, "name"),
    ({"name": "n" * 201}, "name"),
    ({"name": "nul\0inside"}, "name"),
    ({"password": "short"}, "password"),
    ({"password": "p" * 1025}, "password"),
    ({"password": "with a \0 in it"}, "password"),
    ({"email": 5}, "email"),
    ({"role": "admin"}, "role"),
]


async def test_what_is_not_a_registration_is_refused_and_nothing_is_written(
    api: Api, admin: asyncpg.Connection
) -> None:
    for change, param in NOT_A_REGISTRATION:
        before = await admin.fetchval("SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM users)")

        answer = await api.post("/v1/users", new_user(unique_email()) | change)

        assert (answer.status, answer.code) == (400, "invalid_request")
        assert param in (answer.body["error"]["param"] or answer.body["error"]["message"])
        assert await admin.fetchval("SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM users)") == before


async def test_a_login_gives_the_user_and_a_session_that_opens_their_account(api: Api) -> None:
    email = unique_email()
    user = (await api.post("/v1/users", new_user(email))).body

    login = await api.post("/v1/users/login", {"email": email.upper(), "password": PASSWORD})

    assert login.status == 200
    assert user.items() <= login.body.items()
    assert login.body["session_token"].startswith("tgs_")
    me = await api.using(login.body["session_token"]).get("/v1/users/me")
    assert (me.status, me.body) == (200, user)


async def test_a_wrong_password_and_an_unknown_address_get_the_same_answer(customer: Customer) -> None:
    nobody = customer.api.using(None)

    wrong = await nobody.post("/v1/users/login", {"email": customer.email, "password": "not the one"})
    unknown = await nobody.post("/v1/users/login", {"email": unique_email(), "password": "not the one"})
    nonsense = await nobody.post("/v1/users/login", {"email": "no address", "password": "not the one"})

    assert (wrong.status, wrong.code) == (401, "invalid_credentials")
    assert wrong.body == unknown.body == nonsense.body


async def test_a_failed_login_opens_no_session(customer: Customer, admin: asyncpg.Connection) -> None:
    before = await admin.fetchval("SELECT count(*) FROM sessions")

    await customer.api.using(None).post("/v1/users/login", {"email": customer.email, "password": "not the one"})

    assert await admin.fetchval("SELECT count(*) FROM sessions") == before


async def test_guessing_at_one_address_is_slowed_down(api: Api, customer: Customer, room: Room) -> None:
    guess = {"email": customer.email, "password": "not the one"}
    statuses = [(await api.post("/v1/users/login", guess)).status for _ in range(10)]

    refused = await api.post("/v1/users/login", guess | {"email": customer.email.upper(), "password": PASSWORD})

    assert statuses == [401] * 10
    assert (refused.status, refused.code) == (429, "rate_limit_exceeded")
    assert 0 < int(refused.headers["retry-after"]) <= 120
    room.clock.advance(seconds=int(refused.headers["retry-after"]))
    assert (await api.post("/v1/users/login", guess | {"password": PASSWORD})).status == 200


async def test_one_client_address_cannot_try_ever_new_e_mail_addresses(api: Api) -> None:
    tries = await gather(
        *(api.post("/v1/users/login", {"email": f"{n}@example.com", "password": "x"}) for n in range(121))
    )

    assert sorted(answer.status for answer in tries) == [401] * 120 + [429]


async def test_a_session_ends_after_its_lifetime(customer: Customer, room: Room) -> None:
    assert (await customer.api.get("/v1/users/me")).status == 200

    room.clock.advance(days=7)

    ended = await customer.api.get("/v1/users/me")
    assert (ended.status, ended.code) == (401, "unauthorized")


async def test_a_session_ends_in_memory_as_exactly_as_in_the_table(customer: Customer, room: Room) -> None:
    room.clock.advance(days=7, milliseconds=-300)
    assert (await customer.api.get("/v1/users/me")).status == 200

    room.clock.advance(milliseconds=300)

    assert (await customer.api.get("/v1/users/me")).status == 401


async def test_logging_in_removes_the_users_sessions_that_are_over(
    customer: Customer, room: Room, admin: asyncpg.Connection
) -> None:
    room.clock.advance(days=8)

    await room.users.login(email=customer.email, password=PASSWORD)

    assert await admin.fetchval("SELECT count(*) FROM sessions WHERE user_id = $1", customer.id) == 1


async def test_the_balance_is_live(customer: Customer, operator: Customer) -> None:
    grant = {"account_id": customer.account_id, "amount_cents": 1000.5, "reason": "welcome"}
    await operator.api.post("/v1/admin/grants", grant, Idempotency_Key=f"welcome-{customer.account_id}")

    me = await customer.api.get("/v1/users/me")

    assert (me.body["credit_balance_cents"], me.body["held_cents"], me.body["available_cents"]) == (1000.5, 0, 1000.5)


async def test_strangers_learn_that_an_address_is_known_and_nothing_else(customer: Customer) -> None:
    nobody = customer.api.using(None)

    known = await nobody.get(f"/v1/users/by-email?email={customer.email}")
    unknown = await nobody.get(f"/v1/users/by-email?email={unique_email()}")

    assert (known.status, known.body) == (200, {"exists": True})
    assert (unknown.status, unknown.code) == (404, "not_found")


async def test_another_customer_is_a_stranger(api: Api, room: Room, customer: Customer) -> None:
    other = await sign_up(api, room)

    answer = await other.api.get(f"/v1/users/by-email?email={customer.email}")

    assert answer.body == {"exists": True}


async def test_a_service_token_and_an_admin_see_whose_an_address_is(
    api: Api, room: Room, customer: Customer, operator: Customer
) -> None:
    shop = (await room.service_tokens.create(name="web shop", role="customer")).secret
    me = (await customer.api.get("/v1/users/me")).body

    for secret in (shop, operator.api.secret):
        answer = await api.using(secret).get(f"/v1/users/by-email?email={customer.email}")
        assert answer.body == {"exists": True} | me


async def test_looking_addresses_up_is_slowed_down_for_strangers_only(api: Api, room: Room) -> None:
    shop = api.using((await room.service_tokens.create(name="web shop", role="customer")).secret)
    path = f"/v1/users/by-email?email={unique_email()}"

    strangers = await gather(*(api.get(path) for _ in range(121)))

    assert sorted(answer.status for answer in strangers) == [404] * 120 + [429]
    assert (await shop.get(path)).status == 404


async def test_a_by_email_with_a_wrong_secret_is_not_answered_as_a_strangers(api: Api, customer: Customer) -> None:
    answer = await api.using("tgo_" + "x" * 43).get(f"/v1/users/by-email?email={customer.email}")

    assert (answer.status, answer.code) == (401, "unauthorized")


NOT_AN_ADDRESS = ["", "?email=", "?email=nul%00@example.com", "?email=%ff@example.com", "?mail=a@b"]


async def test_a_by_email_without_an_address_is_refused(api: Api) -> None:
    for query in NOT_AN_ADDRESS:
        answer = await api.get(f"/v1/users/by-email{query}")

        assert (answer.status, answer.code) == (400, "invalid_request")


async def test_a_service_token_is_nobody_on_me(api: Api, room: Room) -> None:
    token = await room.service_tokens.create(name="job", role="admin")

    answer = await api.using(token.secret).get("/v1/users/me")

    assert (answer.status, answer.code) == (403, "forbidden")


async def test_an_old_password_hash_is_renewed_by_a_login(
    customer: Customer, room: Room, admin: asyncpg.Connection
) -> None:
    stronger = Room(room.ledger, room.clock, hasher=PasswordHasher(time_cost=2, memory_cost=16, parallelism=1))

    await stronger.users.login(email=customer.email, password=PASSWORD)

    stored = await admin.fetchval("SELECT password_hash FROM users WHERE id = $1", customer.id)
    assert "m=16,t=2,p=1" in stored
    assert (await stronger.users.login(email=customer.email, password=PASSWORD)).user.id == customer.id
