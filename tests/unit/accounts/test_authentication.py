"""What is remembered about a secret, for how long, and how often Postgres is asked."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from accounts import Authenticator, Principal, Tokens, authentication, require_account, require_role
from ledger import LedgerUnavailable
from wire import ApiError

TOKENS = Tokens(b"s" * 32)
START = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Postgres:
    """Stands in for the pool: answers from ``rows``, counts the questions, and can be slow or away."""

    def __init__(self) -> None:
        self.rows: dict[bytes, dict[str, Any]] = {}
        self.asked = 0
        self.was_asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.is_away = False

    async def fetchrow(self, query: str, secret_hash: bytes, *rest: Any) -> dict[str, Any] | None:
        self.asked += 1
        self.was_asked.set()
        await self.may_answer.wait()
        if self.is_away:
            raise ConnectionRefusedError
        return self.rows.get(secret_hash)


class FakeLedger:
    def __init__(self, pool: Postgres) -> None:
        self.pool = pool
        self.shards = 1


class Scene:
    """An authenticator, what Postgres knows, and the time."""

    def __init__(self) -> None:
        self.postgres = Postgres()
        self.elapsed = 0.0
        ledger: Any = FakeLedger(self.postgres)
        self.authenticator = Authenticator(ledger, TOKENS, clock=self.clock, monotonic=lambda: self.elapsed)

    def clock(self) -> datetime:
        return START + timedelta(seconds=self.elapsed)

    def issue(self, kind: Any = "key", *, expires_at: datetime | None = None) -> str:
        secret = TOKENS.make(kind)
        self.postgres.rows[secret.hash] = {
            "id": "id_1",
            "role": "customer",
            "account_id": None if kind == "service" else "acct_1",
            "user_id": None if kind == "service" else "user_1",
            "key_id": "id_1" if kind == "key" else None,
            "expires_at": expires_at,
        }
        return secret.text

    def delete(self, secret: str) -> None:
        del self.postgres.rows[TOKENS.hash(secret)]

    async def authenticate(self, secret: str) -> Principal:
        return await self.authenticator.authenticate(bearer(secret))

    async def authenticate_metered(self, secret: str) -> Principal:
        return await self.authenticator.authenticate_metered(bearer(secret))


def bearer(secret: str) -> web.Request:
    return make_mocked_request("GET", "/", headers={"Authorization": f"Bearer {secret}"})


@pytest.fixture
async def scene() -> Scene:
    return Scene()


async def refused(scene: Scene, secret: str) -> str:
    with pytest.raises(ApiError) as caught:
        await scene.authenticate(secret)
    assert caught.value.code == "unauthorized"
    return caught.value.message


async def test_a_known_secret_is_answered_from_memory(scene: Scene) -> None:
    secret = scene.issue()

    principals = [await scene.authenticate(secret) for _ in range(100)]

    assert principals[0] == Principal(
        kind="key", id="id_1", role="customer", account_id="acct_1", user_id="user_1", key_id="id_1"
    )
    assert all(principal is principals[0] for principal in principals)
    assert scene.postgres.asked == 1


async def test_an_answer_from_memory_does_not_yield_to_other_tasks(scene: Scene) -> None:
    secret = scene.issue()
    await scene.authenticate(secret)

    call = scene.authenticate(secret)

    with pytest.raises(StopIteration):
        call.send(None)


@pytest.mark.parametrize("kind", ["key", "session", "service"])
async def test_what_was_deleted_is_refused_within_a_second(scene: Scene, kind: str) -> None:
    secret = scene.issue(kind)
    await scene.authenticate(secret)
    scene.delete(secret)

    scene.elapsed += 1

    await refused(scene, secret)


async def test_the_age_of_an_answer_counts_from_the_question(scene: Scene) -> None:
    """Postgres may have looked right after it was asked; the answer may have been long on its way."""
    secret = scene.issue()
    scene.postgres.may_answer.clear()
    first = asyncio.create_task(scene.authenticate(secret))
    await scene.postgres.was_asked.wait()
    scene.elapsed += 1
    scene.postgres.may_answer.set()
    await first

    await scene.authenticate(secret)

    assert scene.postgres.asked == 2


async def test_a_metered_route_asks_for_a_key_rarely_and_for_a_session_as_often_as_any(scene: Scene) -> None:
    key, session = scene.issue("key"), scene.issue("session")
    await scene.authenticate_metered(key)
    await scene.authenticate_metered(session)
    scene.elapsed += 1

    await scene.authenticate_metered(key)
    assert scene.postgres.asked == 2
    await scene.authenticate_metered(session)
    assert scene.postgres.asked == 3
    await scene.authenticate(key)
    assert scene.postgres.asked == 4


async def test_a_session_is_refused_from_the_moment_it_ends(scene: Scene) -> None:
    secret = scene.issue("session", expires_at=START + timedelta(seconds=0.5))
    await scene.authenticate(secret)
    scene.delete(secret)  # as the query's condition on expires_at does

    scene.elapsed += 0.5

    await refused(scene, secret)


async def test_a_wrong_secret_is_refused_from_memory_for_a_while(scene: Scene) -> None:
    wrong = TOKENS.make("key").text

    for _ in range(100):
        await refused(scene, wrong)

    assert scene.postgres.asked == 1
    scene.elapsed += authentication.REFUSED_FOR_S
    await refused(scene, wrong)
    assert scene.postgres.asked == 2


@pytest.mark.parametrize("secret", ["x", "tg_short", "tg_" + "x" * 44, "tgx_" + "x" * 43, "tg_" + "ä" * 43, "a b"])
async def test_what_cannot_be_a_secret_does_not_reach_postgres(scene: Scene, secret: str) -> None:
    await refused(scene, secret)

    assert scene.postgres.asked == 0


async def test_a_flood_of_wrong_secrets_drives_no_good_one_out(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "MAX_REMEMBERED", 10)
    good = scene.issue()
    await scene.authenticate(good)
    for _ in range(50):
        await refused(scene, TOKENS.make("key").text)
    asked = scene.postgres.asked

    await scene.authenticate(good)

    assert scene.postgres.asked == asked


async def test_memory_is_bounded_and_forgets_what_was_not_used_for_longest(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authentication, "MAX_REMEMBERED", 3)
    first, second, third, fourth = (scene.issue() for _ in range(4))
    for secret in (first, second, third, first, fourth):
        await scene.authenticate(secret)
    assert scene.postgres.asked == 4

    await scene.authenticate(first)
    assert scene.postgres.asked == 4
    await scene.authenticate(second)
    assert scene.postgres.asked == 5


async def test_requests_that_wait_for_the_same_secret_share_one_question(scene: Scene) -> None:
    secret = scene.issue()
    scene.postgres.may_answer.clear()
    waiting = [asyncio.create_task(scene.authenticate(secret)) for _ in range(50)]
    await scene.postgres.was_asked.wait()

    waiting[0].cancel()
    scene.postgres.may_answer.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)

    assert isinstance(answers[0], asyncio.CancelledError)
    assert all(isinstance(answer, Principal) for answer in answers[1:])
    assert scene.postgres.asked == 1


async def test_without_postgres_an_unknown_secret_is_unavailable_and_a_known_one_passes(scene: Scene) -> None:
    known, wrong, unknown = scene.issue(), TOKENS.make("key").text, TOKENS.make("key").text
    await scene.authenticate(known)
    await refused(scene, wrong)
    scene.postgres.is_away = True

    await scene.authenticate(known)
    await refused(scene, wrong)
    with pytest.raises(LedgerUnavailable):
        await scene.authenticate(unknown)


async def test_an_outage_is_not_remembered_as_a_refusal(scene: Scene) -> None:
    secret = scene.issue()
    scene.postgres.is_away = True
    with pytest.raises(LedgerUnavailable):
        await scene.authenticate(secret)
    scene.postgres.is_away = False

    assert (await scene.authenticate(secret)).id == "id_1"


async def test_forgetting_asks_again_at_once(scene: Scene) -> None:
    secret = scene.issue()
    await scene.authenticate(secret)
    scene.delete(secret)

    scene.authenticator.forget(TOKENS.hash(secret))

    await refused(scene, secret)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer {}"},
        {"Authorization": "bearer  {} "},
        {"x-api-key": "{}"},
        {"X-API-Key": "{}", "Authorization": "Basic dXNlcjpwYXNz"},
    ],
)
async def test_where_a_secret_may_stand(scene: Scene, headers: dict[str, str]) -> None:
    secret = scene.issue()
    sent = {name: value.format(secret) for name, value in headers.items()}

    principal = await scene.authenticator.authenticate(make_mocked_request("GET", "/", headers=sent))

    assert principal.id == "id_1"


@pytest.mark.parametrize("headers", [{}, {"Authorization": ""}, {"Authorization": "Bearer "}, {"x-api-key": ""}])
async def test_a_request_without_a_secret_is_told_how_to_send_one(scene: Scene, headers: dict[str, str]) -> None:
    with pytest.raises(ApiError) as caught:
        await scene.authenticator.authenticate(make_mocked_request("GET", "/", headers=headers))

    assert caught.value.status == 401
    assert "Authorization: Bearer" in caught.value.message
    assert caught.value.headers == {"WWW-Authenticate": "Bearer"}


async def test_every_wrong_secret_gets_the_same_message(scene: Scene) -> None:
    deleted = scene.issue()
    scene.delete(deleted)

    messages = {await refused(scene, secret) for secret in (deleted, "nonsense", TOKENS.make("session").text)}

    assert len(messages) == 1


def principal(**changes: Any) -> Principal:
    fields = {"kind": "session", "id": "user_1", "role": "finance", "account_id": "acct_1", "user_id": "user_1"}
    return Principal(**({"key_id": None} | fields | changes))


def test_a_role_that_is_not_among_those_needed_is_forbidden() -> None:
    require_role(principal(), "finance", "admin")

    with pytest.raises(ApiError, match="admin") as caught:
        require_role(principal(), "admin")
    assert caught.value.code == "forbidden"


def test_a_service_token_acts_for_no_account() -> None:
    assert require_account(principal()) == "acct_1"

    with pytest.raises(ApiError) as caught:
        require_account(principal(kind="service", account_id=None, user_id=None))
    assert caught.value.code == "forbidden"
