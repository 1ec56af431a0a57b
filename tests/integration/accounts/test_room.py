"""What holds for the room as a whole: its SQL, its rights, its routes and its logs."""

from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

import accounts
from ledger import load_queries
from wire import openapi_document

from .conftest import PASSWORD, Api, Customer, Room, sign_up
from .test_keys import new_key


async def test_every_query_fits_the_schema_and_the_rights_of_the_application(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as connection:
        for name, query in load_queries("accounts").items():
            try:
                await connection.execute("EXPLAIN (GENERIC_PLAN) " + query)
            except asyncpg.PostgresError as error:
                pytest.fail(f"{name}: {error}")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE users SET role = 'admin'",
        "UPDATE users SET account_id = 'acct_1'",
        "DELETE FROM users",
        "UPDATE key_secrets SET account_id = 'acct_1'",
        "UPDATE service_tokens SET role = 'admin'",
        "DELETE FROM operator_requests",
        "UPDATE operator_requests SET request_hash = ''",
    ],
)
async def test_the_application_has_no_right_it_does_not_need(pool: asyncpg.Pool, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await pool.execute(statement)


async def test_the_database_knows_the_roles(admin: asyncpg.Connection, customer: Customer) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await admin.execute("UPDATE users SET role = 'root'")


async def test_no_secret_and_no_personal_data_is_logged_or_becomes_an_event(
    api: Api, room: Room, admin: asyncpg.Connection
) -> None:
    with capture_logs() as logs:
        user = await sign_up(api, room)
        key = await new_key(user)
        token = await room.service_tokens.create(name="finance job", role="finance")
        await user.api.delete(f"/v1/keys/{key['id']}")
        await user.api.using("tg_" + "w" * 43).get("/v1/keys")

    told = str(logs) + str([dict(row) for row in await admin.fetch("SELECT * FROM events")])
    assert [log["event"] for log in logs] == [
        "account.opened",
        "user.registered",
        "session.opened",
        "key.created",
        "service_token.created",
        "key.deleted",
    ]
    for private in (user.email, PASSWORD, user.api.secret, key["key"], token.secret, "w" * 43, "Production Key"):
        assert str(private) not in told


async def test_the_routes_describe_themselves(room: Room) -> None:
    document: dict[str, Any] = openapi_document(room.routes(), title="t", version="1")

    described = {(method, path) for path, item in document["paths"].items() for method in item}
    assert described == {
        ("post", "/v1/users"),
        ("post", "/v1/users/login"),
        ("get", "/v1/users/me"),
        ("get", "/v1/users/by-email"),
        ("post", "/v1/keys"),
        ("get", "/v1/keys"),
        ("delete", "/v1/keys/{id}"),
        ("post", "/v1/admin/grants"),
        ("post", "/v1/admin/adjustments"),
        ("post", "/v1/admin/plans"),
        ("get", "/v1/admin/accounts/{id}"),
    }


def test_the_public_names_are_those_listed() -> None:
    assert accounts.__all__ == sorted(accounts.__all__, key=lambda name: (name.islower(), name))
    assert all(hasattr(accounts, name) for name in accounts.__all__)
