"""A customer with money and a key, and what they do: chat, read their balance, look at their own events."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import aiohttp
import msgspec
import openai

from tests.acceptance.client import Answer
from tests.acceptance.running_demo import RunningDemo, until

MODEL = "qwen3-32b"
PASSWORD = "an honest password"
CHAT = "/v1/chat/completions"


def unique_prompt() -> list[dict[str, str]]:
    """Messages that the backend's prompt cache has never seen, always of the same length."""
    return [{"role": "user", "content": f"Say something about ledgers, {secrets.token_hex(8)}."}]


def wishes(**simulate: Any) -> str:
    """The header ``x-simulate`` of the simulated backend."""
    return ",".join(f"{name}={value}" for name, value in simulate.items())


class Key:
    """A key and its secret."""

    def __init__(self, key_id: str, secret: str) -> None:
        self.id = key_id
        self.secret = secret


class Customer:
    """Somebody who registered, was granted credit, and made a key."""

    def __init__(self, demo: RunningDemo, account_id: str, session: str, key: Key) -> None:
        self.demo = demo
        self.account_id = account_id
        self.session = session
        self.key = key

    def bearer(self, secret: str | None = None, **simulate: Any) -> dict[str, str]:
        headers = {"Authorization": f"Bearer {secret or self.key.secret}"}
        if simulate:
            headers["x-simulate"] = wishes(**simulate)
        return headers

    # --- chat

    async def chat(self, *, secret: str | None = None, simulate: dict[str, Any] | None = None, **fields: Any) -> Answer:
        """One chat completion by plain HTTP, read to its end whatever its form."""
        return await self.demo.http.post(CHAT, request(**fields), headers=self.bearer(secret, **(simulate or {})))

    async def chat_raw(self, body: Any) -> Answer:
        return await self.demo.http.call("POST", CHAT, raw=body, headers=self.bearer())

    @asynccontextmanager
    async def stream(
        self, *, secret: str | None = None, simulate: dict[str, Any] | None = None, **fields: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A streamed answer, open."""
        body = request(**fields, stream=True)
        async with self.demo.http.open("POST", CHAT, body, headers=self.bearer(secret, **(simulate or {}))) as response:
            yield response

    def sdk(self, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.demo.information.base_url, api_key=self.key.secret, **options)

    def async_sdk(self, **options: Any) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=self.demo.information.base_url, api_key=self.key.secret, **options)

    # --- what they see of their account

    async def get(self, path: str, *, secret: str | None = None) -> Answer:
        return await self.demo.http.get(path, headers=self.bearer(secret))

    async def balance(self) -> Decimal:
        """The posted balance in cents."""
        answer = await self.get("/v1/users/me", secret=self.session)
        assert answer.status == 200, answer
        return Decimal(answer.json["credit_balance_cents"])

    async def new_key(self, **limits: Any) -> Key:
        answer = await self.demo.http.post("/v1/keys", {"name": "test", **limits}, headers=self.bearer(self.session))
        assert answer.status == 201, answer
        return Key(answer.json["id"], answer.json["key"])

    # --- what others see of it

    async def account(self) -> Any:
        """As an operator sees it."""
        answer = await self.demo.http.get(f"/v1/admin/accounts/{self.account_id}", headers=self.demo.operator)
        assert answer.status == 200, answer
        return answer.json

    async def when_no_hold_is_open(self) -> Any:
        """The account, once every hold of it has ended."""

        async def quiet() -> Any:
            account = await self.account()
            return None if account["open_holds"] or account["held_cents"] else account

        account = await until(quiet)
        assert account["posted_cents"] == account["available_cents"]
        return account

    async def last_event(self) -> tuple[str, Any]:
        """Its type and its payload."""
        event = (await self.events())[-1]
        return event["type"], msgspec.json.decode(event["payload"])

    async def events(self) -> list[Any]:
        """The account's own stream."""
        return await self.demo.fetch("SELECT * FROM events WHERE stream_id = $1 ORDER BY seq", self.account_id)

    async def event_types(self) -> list[str]:
        return [event["type"] for event in await self.events()]

    async def holds(self) -> list[str]:
        """The ids of all holds that were ever placed, in order."""
        return [event["hold_id"] for event in await self.events() if event["type"] == "hold.placed"]

    async def receipt(self, hold_id: str, *, status: str = "settled") -> Any:
        """The receipt of a hold, once that has ended: so, or otherwise for good."""

        async def ended() -> Any:
            receipt = await self.get(f"/v1/receipts/{hold_id}")
            assert receipt.status in (200, 503), receipt
            return receipt.status == 200 and receipt.json["status"] in (status, "settled", "voided") and receipt.json

        return await until(ended)

    async def usage_logs(self, lines: int, **query: Any) -> list[Any]:
        """The usage logs, once there are so many lines of them."""

        async def caught_up() -> list[Any] | None:
            found = await self.get(f"/v1/usage/logs?limit=500{''.join(f'&{k}={v}' for k, v in query.items())}")
            assert found.status == 200, found
            return found.json if len(found.json) >= lines else None

        found = await until(caught_up)
        assert found is not None
        assert len(found) == lines
        return found


def request(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": unique_prompt(), **fields}


async def new_customer(demo: RunningDemo, *, cents: Any = 100, **limits: Any) -> Customer:
    """Registers over HTTP, is granted credit by an operator, and makes a key with these limits."""
    email = f"{secrets.token_hex(6)}@example.com"
    registered = await demo.http.post("/v1/users", {"email": email, "name": "Test", "password": PASSWORD})
    assert registered.status == 201, registered
    login = await demo.http.post("/v1/users/login", {"email": email, "password": PASSWORD})
    assert login.status == 200, login
    account_id = registered.json["account_id"]
    if cents:
        await demo.grant(account_id, cents)
    customer = Customer(demo, account_id, login.json["session_token"], Key("", ""))
    customer.key = await customer.new_key(**limits)
    return customer


async def gather(*work: Any) -> list[Any]:
    return list(await asyncio.gather(*work))
