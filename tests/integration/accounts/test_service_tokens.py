"""Service tokens: made and revoked by the command line, shown once."""

import asyncpg
import pytest

from accounts import ServiceTokenNotFound
from tests.conftest import Clock

from .conftest import Api, Room


async def test_a_service_token_is_shown_once_and_stored_as_a_hash(room: Room, admin: asyncpg.Connection) -> None:
    created = await room.service_tokens.create(name="finance job", role="finance")

    stored = str([dict(row) for row in await admin.fetch("SELECT * FROM service_tokens")])
    assert created.secret.startswith("tgo_")
    assert created.secret[12:] not in stored
    assert created.secret not in repr(created)
    assert await room.service_tokens.all() == [created.token]


async def test_a_revoked_token_is_refused_within_a_second_by_every_worker(
    api: Api, other_worker: Api, room: Room, clock: Clock
) -> None:
    created = await room.service_tokens.create(name="finance job", role="finance")
    path = "/v1/admin/accounts/acct_unknown"
    assert (await other_worker.using(created.secret).get(path)).status == 404

    await room.service_tokens.revoke(created.token.id)
    clock.advance(seconds=1)

    assert (await other_worker.using(created.secret).get(path)).status == 401
    [token] = await room.service_tokens.all()
    assert token.revoked_at is not None


async def test_a_token_is_revoked_once(room: Room) -> None:
    created = await room.service_tokens.create(name="finance job", role="finance")
    await room.service_tokens.revoke(created.token.id)

    with pytest.raises(ServiceTokenNotFound):
        await room.service_tokens.revoke(created.token.id)
    with pytest.raises(ServiceTokenNotFound):
        await room.service_tokens.revoke("token_unknown")
