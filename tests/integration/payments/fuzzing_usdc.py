"""Pushes of node providers that nobody should believe: forged, altered, signed by another chain's provider, or by the
right one with whatever in them. A true one has its chain looked at, and that is all that any can do.
"""

import hashlib
import hmac
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiohttp.test_utils import TestClient, TestServer
from bip32 import BIP32
from hypothesis import strategies as st
from msgspec.structs import replace

from accounts import Authenticator, Tokens, open_account
from ledger import Ledger
from payments import Chain, UsdcConfig, UsdcRoutes, usdc_road
from payments.usdc.routes import MAX_PUSH
from tests.conftest import Clock

from .conftest import app_of

#: By the name of the chain; None: its door is shut.
SECRETS: dict[str, str | None] = {"base": "whsec_base", "polygon": "whsec_polygon", "arbitrum": None}
#: When the chains are due unless they are woken.
LATER = datetime(2100, 1, 1, tzinfo=UTC)
#: What is done to a body after it was signed.
DISGUISES: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda body: body,
    "another byte": lambda body: body + b" ",
    "cut short": lambda body: body[:-1],
    "twice": lambda body: body + body,
    "huge": lambda body: body + b" " * MAX_PUSH,
}
#: What is done to a true signature: it is almost right then.
SPOILINGS: dict[str, Callable[[str], str]] = {
    "none": lambda signature: signature,
    "another digit": lambda signature: signature[:-1] + ("0" if signature[-1] != "0" else "1"),
    "cut short": lambda signature: signature[:-1],
    "longer": lambda signature: signature + "0",
    "with its kind": lambda signature: "sha256=" + signature,
    "two of them": lambda signature: f"{signature}, {signature}",
    "in wide digits": lambda signature: "".join(chr(ord(digit) + 0xFEE0) for digit in signature),
}

_words = st.sampled_from(["", "event", "activity", "toAddress", "value", "0x1", "hash", "removed", "\x00", "'"])
_bodies = st.binary(max_size=300) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20) | _words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_words, inner, max_size=4),
    max_leaves=8,
).map(msgspec.json.encode)


class UsdcAttack(msgspec.Struct, frozen=True):
    """One push. ``header`` None: signed by the secret of ``signer``, and then spoiled in this way."""

    body: bytes
    chain: str
    signer: str
    header: str | None
    disguise: str
    spoiling: str

    @property
    def is_believable(self) -> bool:
        is_same = DISGUISES[self.disguise](self.body) == self.body
        return self.header is None and self.signer == self.chain and is_same and self.spoiling == "none"


usdc_attacks = st.builds(
    UsdcAttack,
    body=_bodies,
    chain=st.sampled_from(["base", *SECRETS, "8453", "BASE", "base ", "..", "%00"]),
    signer=st.sampled_from(["base", "base", "polygon", "nobody"]),
    header=st.none() | st.none() | st.none() | st.text(st.characters(exclude_categories=["C"]), max_size=80),
    disguise=st.sampled_from(["none"] * 4 + [*DISGUISES]),
    spoiling=st.sampled_from(["none"] * 4 + [*SPOILINGS]),
)


class UsdcTarget:
    """A process of ours with chains that are not due for long, and a customer to whom nobody has sent anything."""

    def __init__(self, ledger: Ledger, client: TestClient[Any, Any], chains: dict[str, Chain], account_id: str) -> None:
        self._ledger = ledger
        self._pool = ledger.pool
        self._client = client
        self._chains = chains
        self._account_id = account_id
        self._events = 0

    async def prepare(self) -> None:
        await self._pool.executemany(
            "INSERT INTO usdc_scans (chain_id, next_look_at) VALUES ($1, $2)",
            [(chain.chain_id, LATER) for chain in self._chains.values()],
        )
        self._events = len(await self._ledger.stream(self._account_id))

    async def suffer(self, attack: UsdcAttack) -> None:
        """Raises AssertionError when the attack did any harm."""
        secret = SECRETS.get(attack.signer) or "whsec_nobody"
        header = attack.header
        if header is None:
            header = SPOILINGS[attack.spoiling](hmac.digest(secret.encode(), attack.body, hashlib.sha256).hex())
        body = DISGUISES[attack.disguise](attack.body)
        path = f"/v1/topup/usdc/webhook/{attack.chain}"
        async with self._client.post(path, data=body, headers={"X-Alchemy-Signature": header}) as answer:
            status = answer.status

        refused = 404 if attack.chain not in SECRETS else 400 if SECRETS[attack.chain] else 503
        assert status == (200 if attack.is_believable else refused), f"answered {status}"
        await self._require_unharmed(attack.chain if attack.is_believable else None)

    async def _require_unharmed(self, woken: str | None) -> None:
        """Raises AssertionError when anything happened but that the chain named is due."""
        due, deposits, events = await self._pool.fetchrow(
            "SELECT ARRAY(SELECT chain_id FROM usdc_scans WHERE next_look_at < $1),"
            " (SELECT count(*) FROM usdc_deposits), (SELECT count(*) FROM events WHERE stream_id = $2)",
            LATER,
            self._account_id,
        )
        assert due == ([] if woken is None else [self._chains[woken].chain_id]), "another chain is looked at, or none"
        assert (deposits, events) == (0, self._events), "something was booked"
        if woken is not None:
            await self._pool.execute("UPDATE usdc_scans SET next_look_at = $1", LATER)


@asynccontextmanager
async def open_usdc_target(ledger: Ledger, clock: Clock) -> AsyncIterator[UsdcTarget]:
    """No node is behind it: nothing that a push does may need one."""
    a_chain = Chain(
        name="", chain_id=0, token="0x" + "11" * 20, rpc_urls=("http://127.0.0.1:1",), confirmations=3, minimum_units=1
    )
    chains = {
        name: replace(a_chain, name=name, chain_id=number, webhook_secret=secret)
        for number, (name, secret) in enumerate(SECRETS.items(), start=1)
    }
    wallet = BIP32.from_seed(b"a seed of somebody's wallet ....")
    road = usdc_road(UsdcConfig(xpub=wallet.get_xpub(), chains=tuple(chains.values())), ledger, clock)
    authenticator = Authenticator(ledger, Tokens(b"a server secret of 32 bytes ...."), clock=clock, monotonic=lambda: 0)
    async with TestClient(TestServer(app_of(UsdcRoutes(authenticator, road).routes()))) as client:
        account_id = (await open_account(ledger, currency="USD")).account_id
        await road.addresses.of_account(account_id)
        target = UsdcTarget(ledger, client, chains, account_id)
        await target.prepare()
        yield target
