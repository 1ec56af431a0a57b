"""What holds for the room as a whole: its SQL, its rights, its routes and its logs."""

from typing import Any

import asyncpg
import pytest
from structlog.testing import capture_logs

import payments
from ledger import load_queries
from payments import TopupRoutes, stripe_routes
from wire import openapi_document

from .conftest import API_KEY, SECRET, Payer, Till


@pytest.mark.parametrize("package", ["payments", "payments.usdc"])
async def test_every_query_fits_the_schema_and_the_rights_of_the_application(pool: asyncpg.Pool, package: str) -> None:
    async with pool.acquire() as connection:
        for name, query in load_queries(package).items():
            try:
                await connection.execute("EXPLAIN (GENERIC_PLAN) " + query)
            except asyncpg.PostgresError as error:
                pytest.fail(f"{name}: {error}")


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM payment_notifications",
        "UPDATE payment_notifications SET body = ''",
        "UPDATE payment_notifications SET headers = '[]'",
        "UPDATE payment_notifications SET event_id = 'evt_1'",
    ],
)
async def test_what_providers_told_us_cannot_be_changed_by_the_application(pool: asyncpg.Pool, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await pool.execute(statement)


async def test_no_secret_is_logged_or_stored_and_none_is_in_a_message(
    till: Till, payer: Payer, admin: asyncpg.Connection
) -> None:
    with capture_logs() as logs:
        await till.paid(payer)
        for event in till.events():
            await till.tell(event)
        till.stripe_fails(status=401)
        answer = await till.checkout(payer)

    stored = str([dict(row) for row in await admin.fetch("SELECT * FROM payment_notifications")])
    events = str([dict(row) for row in await admin.fetch("SELECT payload FROM events")])
    for told in (str(logs), stored, events, str(answer.body), repr(till.config)):
        assert API_KEY not in told
        assert SECRET not in told
    assert [log["event"] for log in logs] == ["topup.pending", *["payment.processed"] * 3, "payment_provider.refused"]


def test_the_routes_describe_themselves(till: Till) -> None:
    nothing: Any = None  # is asked of them
    routes = [*TopupRoutes(till.ledger, nothing).routes(), *stripe_routes(till.ledger, nothing, None)]

    document = openapi_document(routes, title="t", version="1")

    assert {(method, path) for path, item in document["paths"].items() for method in item} == {
        ("post", "/v1/topup/stripe/checkout"),
        ("post", "/v1/topup/stripe/webhook"),
        ("post", "/v1/topup/stripe/card"),
        ("get", "/v1/topup/stripe/card"),
        ("delete", "/v1/topup/stripe/card"),
        ("put", "/v1/topup/automatic"),
        ("get", "/v1/topup/automatic"),
        ("delete", "/v1/topup/automatic"),
        ("get", "/v1/topup/history"),
    }


def test_the_public_names_are_those_listed() -> None:
    assert payments.__all__ == sorted(payments.__all__, key=lambda name: (name.islower(), name))
    assert all(hasattr(payments, name) for name in payments.__all__)
