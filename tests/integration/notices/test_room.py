"""What holds for the room as a whole: its rights, its routes, and what it keeps to itself."""

from typing import Any

import asyncpg
import pytest

import notices
from ledger import load_queries
from notices import CourierConfig, Targets
from wire import openapi_document

from .conftest import SERVER_SECRET, Office


async def test_every_query_fits_the_schema_and_the_rights_of_the_application(pool: asyncpg.Pool) -> None:
    async with pool.acquire() as connection:
        for name, query in load_queries("notices").items():
            try:
                await connection.execute("EXPLAIN (GENERIC_PLAN) " + query)
            except asyncpg.PostgresError as error:
                pytest.fail(f"{name}: {error}")


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE notices SET body = ''",
        "UPDATE notices SET endpoint_id = ''",
        "UPDATE webhook_endpoints SET account_id = ''",
        "UPDATE webhook_endpoints SET after_position = 0",
        "UPDATE notice_attempts SET error = NULL",
        "DELETE FROM notice_attempts",
        "DELETE FROM notice_checkpoints",
    ],
)
async def test_the_application_has_no_right_that_it_does_not_need(pool: asyncpg.Pool, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await pool.execute(statement)


async def test_the_routes_describe_themselves(office: Office) -> None:
    document: dict[str, Any] = openapi_document(office.routes(), title="t", version="1")

    described = {(method, path) for path, item in document["paths"].items() for method in item}
    one = "/v1/webhook_endpoints/{id}"
    assert described == {
        ("post", "/v1/webhook_endpoints"),
        ("get", "/v1/webhook_endpoints"),
        ("get", one),
        ("patch", one),
        ("delete", one),
        ("post", f"{one}/rotate_secret"),
        ("post", f"{one}/test"),
        ("get", f"{one}/deliveries"),
        ("post", f"{one}/notices/{{notice_id}}/resend"),
        ("get", "/v1/notices/low_balance"),
        ("put", "/v1/notices/low_balance"),
    }


def test_the_public_names_are_those_listed() -> None:
    assert notices.__all__ == sorted(notices.__all__, key=lambda name: (name.islower(), not name.isupper(), name))
    assert all(hasattr(notices, name) for name in notices.__all__)


def test_a_configuration_does_not_show_its_secret() -> None:
    config = CourierConfig(server_secret=SERVER_SECRET, targets=Targets(allow_http=False, allow_private=False))

    assert "secret" not in repr(config).lower()
