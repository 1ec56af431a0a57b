"""Authentication on a real Postgres: one that is away, one with several shards, and the ledger's last word."""

import asyncio
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio
from aiohttp.test_utils import make_mocked_request

from accounts import open_account
from ledger import Ledger, Refused
from tests.conftest import APP_SETTINGS, Clock
from tollgate.migrate import migrate

from .conftest import Api, Customer, Room, serve
from .test_keys import hold, new_key


class Wire:
    """A cable to Postgres that can be cut."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def plug_in(self) -> None:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await self._server.wait_closed()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection(*self._target)
        await asyncio.gather(self._pump(reader, upstream_writer), self._pump(upstream_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # the other end was cut off
        finally:
            self._writers.discard(writer)
            writer.close()


@pytest_asyncio.fixture
async def wire(database_url: str) -> AsyncIterator[Wire]:
    parts = urlsplit(database_url)
    wire = Wire(parts.hostname or "127.0.0.1", parts.port or 5432)
    await wire.plug_in()
    yield wire
    await wire.cut()


@pytest_asyncio.fixture
async def pool(database_url: str, wire: Wire) -> AsyncIterator[asyncpg.Pool]:
    """The application's connections, over the cable."""
    async with asyncpg.create_pool(
        database_url, host="127.0.0.1", port=wire.port, min_size=1, max_size=4, server_settings=APP_SETTINGS
    ) as pool:
        yield pool
        await wire.cut()
        await wire.plug_in()


async def test_while_postgres_is_away_who_is_known_passes_and_who_is_not_is_told_to_wait(
    customer: Customer, room: Room, wire: Wire
) -> None:
    known, unknown = await new_key(customer), await new_key(customer)
    request = make_mocked_request("GET", "/", headers={"x-api-key": known["key"]})
    principal = await room.authenticator.authenticate(request)

    await wire.cut()

    assert await room.authenticator.authenticate(request) == principal
    for path in ("/v1/users/me", "/v1/keys"):
        answer = await customer.api.using(known["key"]).get(path)
        assert (answer.status, answer.code) == (503, "ledger_unavailable")
    answer = await customer.api.using(unknown["key"]).get("/v1/keys")
    assert (answer.status, answer.code) == (503, "ledger_unavailable")
    await wire.plug_in()
    assert (await customer.api.using(unknown["key"]).get("/v1/keys")).status == 200


async def test_while_postgres_is_away_a_login_is_unavailable_and_not_wrong(customer: Customer, wire: Wire) -> None:
    await wire.cut()

    answer = await customer.api.using(None).post("/v1/users/login", {"email": customer.email, "password": "x"})

    assert (answer.status, answer.code) == (503, "ledger_unavailable")
    await wire.plug_in()


async def test_a_key_deleted_elsewhere_is_refused_by_the_ledger_on_a_metered_route(
    customer: Customer, other_worker: Api, room: Room, ledger: Ledger, clock: Clock
) -> None:
    key = await new_key(customer)
    request = make_mocked_request("GET", "/", headers={"x-api-key": key["key"]})
    await room.authenticator.authenticate_metered(request)
    await other_worker.using(customer.api.secret).delete(f"/v1/keys/{key['id']}")
    clock.advance(seconds=30)

    principal = await room.authenticator.authenticate_metered(request)

    assert principal.key_id == key["id"]
    with pytest.raises(Refused, match="deleted"):
        await ledger.submit(hold(customer, key["id"], 1))


async def test_a_key_is_found_in_whatever_shard_its_account_is(empty_database_url: str, clock: Clock) -> None:
    connection = await asyncpg.connect(empty_database_url)
    await migrate(connection, shards=3)

    async with asyncpg.create_pool(empty_database_url, min_size=1, server_settings=APP_SETTINGS) as pool:
        ledger = await Ledger.open(
            pool, lambda: asyncpg.connect(empty_database_url, server_settings=APP_SETTINGS), clock
        )
        room = Room(ledger, clock)
        for _ in range(12):
            account = await open_account(ledger, currency="USD")
            key = await room.keys.create(
                account.account_id, user_id=None, name="k", rate_limit_rpm=None, monthly_budget=None
            )
            request = make_mocked_request("GET", "/", headers={"x-api-key": key.secret})
            assert (await room.authenticator.authenticate(request)).account_id == account.account_id
        await ledger.close()
    assert await connection.fetchval("SELECT count(DISTINCT shard) FROM key_states") == 3
    await connection.close()


async def test_any_bytes_in_the_header_are_a_wrong_secret(room: Room) -> None:
    async for api in serve(room):
        assert api.client.port is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", api.client.port)
        writer.write(b"GET /v1/keys HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer tg_\xff\xfe\xc3\r\n\r\n")

        status_line = await reader.readline()

        assert status_line.split()[1] == b"401"
        writer.close()
