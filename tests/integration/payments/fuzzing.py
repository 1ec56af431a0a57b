"""``python -m tests.integration.payments.fuzzing``: webhooks that nobody should believe, as many as wished.

Some are made up, some are Stripe's own with something altered; some are signed by somebody else, and some, worse, by
Stripe itself. There is a payment of another amount and in another currency than was asked for, so that no single
alteration of what Stripe says can make it right.
"""

import argparse
import asyncio
import itertools
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlencode

import asyncpg
import msgspec
import structlog
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from ledger import Ledger
from payments.stripe.events import MAX_BODY
from simulated_stripe.objects import Object
from tests.conftest import APP_SETTINGS, Clock
from tests.integration.payments.alipay_till import open_alipay_till
from tests.integration.payments.conftest import WEBHOOK, Payer, Till, open_till, require_unharmed
from tests.integration.payments.fuzzing_alipay import AlipayTarget, alipay_attacks
from tests.integration.payments.fuzzing_usdc import open_usdc_target, usdc_attacks
from tests.integration.payments.savers import Saver
from tollgate.embedded_postgres import EmbeddedPostgres
from tollgate.migrate import migrate

#: Any JSON, with the words that mean something to us among it.
_words = st.sampled_from(
    [
        *("", "paid", "unpaid", "won", "lost", "usd", "USD", "pi_1", "evt_1", "\x00", "'", "topup_1", "-1"),
        *("setup", "payment", "succeeded", "canceled", "payment_intent.succeeded", "checkout.session.completed"),
        *("payment_intent.payment_failed", "charge.refunded", "charge.dispute.created"),
    ]
)
_leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20) | _words
_json = st.recursive(
    _leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | _words, inner, max_size=4),
    max_leaves=8,
)


#: Brings an attack to its door; raises AssertionError when it did any harm.
Suffer: TypeAlias = Callable[[Any], Coroutine[Any, Any, None]]
#: By name, with what is sent to each.
Doors: TypeAlias = list[tuple[str, st.SearchStrategy[Any], Suffer]]

_numbers = itertools.count()


class Alteration(msgspec.Struct, frozen=True):
    """Which of Stripe's events, which place in it, and what stands there instead."""

    event: int
    path: list[int]
    instead: Any
    is_removed: bool
    is_cut_at: int | None  # the bytes after are missing


class Attack(msgspec.Struct, frozen=True):
    """One request. ``header`` None: signed as Stripe does, ``age_s`` ago, and then spoiled in this way."""

    body: bytes | Alteration
    header: str | None
    age_s: int
    disguise: str = "none"
    spoiling: str = "none"


#: What is done to a body before it is signed: encodings that are not Stripe's, and far too much of it.
DISGUISES: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda body: body,
    "utf-16": lambda body: body.decode(errors="replace").encode("utf-16"),
    "utf-8 with a mark": lambda body: b"\xef\xbb\xbf" + body,
    "latin-1": lambda body: body.decode(errors="replace").encode("latin-1", "replace").replace(b"a", b"\xe4", 1),
    "twice": lambda body: body + body,
    "deep": lambda body: b"[" * 2000 + body,
    "huge": lambda body: body + b" " * MAX_BODY,
    "of alipay": lambda body: urlencode({"notify_id": "n1", "trade_status": "TRADE_SUCCESS", "body": body}).encode(),
}
#: What is done to a true signature: it is almost right then.
SPOILINGS: dict[str, Callable[[str], str]] = {
    "none": lambda header: header,
    "another digit": lambda header: header[:-1] + ("0" if header[-1] != "0" else "1"),
    "cut short": lambda header: header[:-1],
    "longer": lambda header: header + "0",
    "another scheme": lambda header: header.replace("v1=", "v0="),
    "in capitals": lambda header: header.replace("v1=", "V1="),
    "a moment later": lambda header: header.replace("t=", "t=1", 1),
    "without a time": lambda header: header.partition(",")[2],
    "two times": lambda header: "t=1," + header,
}


alterations = st.builds(
    Alteration,
    event=st.integers(0, 50),
    path=st.lists(st.integers(0, 30), min_size=1, max_size=5),
    instead=_json,
    is_removed=st.booleans(),
    is_cut_at=st.none() | st.integers(0, 2000),
)
bodies = st.binary(max_size=300) | _json.map(msgspec.json.encode) | alterations
headers = st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=150) | st.builds(
    "t={},v1={}".format, st.integers(), st.text("0123456789abcdef", max_size=64)
)
#: Most are what they were, so that what is signed is altered in one way.
attacks = st.builds(
    Attack,
    body=bodies,
    header=st.none() | st.none() | headers,
    age_s=st.sampled_from([0, 0, 0, 300, 301, 10**6]),
    disguise=st.sampled_from(["none"] * 8 + [*DISGUISES]),
    spoiling=st.sampled_from(["none"] * 8 + [*SPOILINGS]),
)


def altered(event: Object, alteration: Alteration) -> bytes:
    """The event under a new id, with one thing in it changed, or with its end missing."""
    event = msgspec.json.decode(msgspec.json.encode(event)) | {"id": f"evt_{next(_numbers)}"}
    place: Any = event
    *way, last = alteration.path
    for step in way:
        inner = [key for key in keys_of(place) if keys_of(place[key])]
        if not inner:
            break
        place = place[inner[step % len(inner)]]
    keys = keys_of(place)
    key = keys[last % len(keys)]
    if alteration.is_removed:
        del place[key]
    else:
        place[key] = alteration.instead
    return msgspec.json.encode(event)[: alteration.is_cut_at]


def keys_of(place: Any) -> list[Any]:
    match place:
        case dict():
            return list(place)
        case list():
            return list(range(len(place)))
        case _:
            return []


class Target:
    """A till with a customer who asked for one thing and paid another, and whose saved card takes days to pay."""

    def __init__(self, till: Till, payer: Payer) -> None:
        self.till = till
        self.payer = payer
        self.events = till.events()

    @classmethod
    async def prepare(cls, till: Till) -> "Target":
        payer = await till.payer()
        session = await till.ordered(payer, 1000)
        payment = till.pay(session, amount=999, currency="eur")
        till.refund(payment, 100)
        till.books.dispute(till.charge_of(payment), 100)
        saver = Saver(till, payer)
        till.stripe.cards.wallets.change_outcome(await saver.save(), "processing")
        await saver.turn_on()
        await saver.run()
        return cls(till, payer)

    async def suffer(self, attack: Attack) -> None:
        """Raises AssertionError when the attack did any harm."""
        till = self.till
        body = attack.body
        if isinstance(body, Alteration):
            body = altered(self.events[body.event % len(self.events)], body)
        body = DISGUISES[attack.disguise](body)
        header = attack.header
        if header is None:
            header = SPOILINGS[attack.spoiling](till.signed(body, age_s=attack.age_s))
        async with till.client.post(WEBHOOK, data=body, headers={"Stripe-Signature": header}) as answer:
            status = answer.status
        await till.road.inbox.close()
        is_believable = attack.header is None and attack.age_s <= 300 and attack.spoiling == "none"

        assert status == 400 or (status == 200 and is_believable), f"answered {status}"
        if status == 200:  # what was harmed stays so, and is found after the next one at the latest
            await require_unharmed(till, self.payer)


async def _serve(stack: AsyncExitStack, directory: str) -> Doors:
    """Targets on a Postgres of their own, with what is sent to each."""
    postgres = await EmbeddedPostgres.start(Path(directory) / "postgres", durable=False)
    stack.push_async_callback(postgres.discard)
    owner = await asyncpg.connect(postgres.url)
    await migrate(owner)
    await owner.close()

    async def connect() -> asyncpg.Connection:
        return await asyncpg.connect(postgres.url, server_settings=APP_SETTINGS)

    pool = await stack.enter_async_context(asyncpg.create_pool(postgres.url, server_settings=APP_SETTINGS))
    clock = Clock(datetime(2026, 11, 21, 12, tzinfo=UTC))
    ledger = await Ledger.open(pool, connect, clock)
    stack.push_async_callback(ledger.close)
    till = await stack.enter_async_context(open_till(ledger, clock))
    alipay_till = await stack.enter_async_context(open_alipay_till(ledger, clock))
    usdc_target = await stack.enter_async_context(open_usdc_target(ledger, clock))
    return [
        ("stripe", attacks, (await Target.prepare(till)).suffer),
        ("alipay", alipay_attacks, (await AlipayTarget.prepare(alipay_till)).suffer),
        ("usdc", usdc_attacks, usdc_target.suffer),
    ]


def main() -> None:
    """Exits 1 with the smallest attack that did harm."""
    parser = argparse.ArgumentParser(prog="make fuzz-webhooks", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000, help="in all, each door gets as many as the others")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    with tempfile.TemporaryDirectory(prefix="tollgate-fuzz-") as directory, asyncio.Runner() as runner:
        Path(directory).chmod(0o711)  # the server's own user must be able to reach its data
        stack = AsyncExitStack()
        try:
            doors = runner.run(_serve(stack, directory))
            for name, strategy, suffer in doors:
                count = _attack(runner, strategy, suffer, inputs=options.inputs // len(doors), chance=options.seed)
                print(f"{name}: {count} webhooks, none believed and none that broke anything")  # noqa: T201
        finally:
            runner.run(stack.aclose())


def _attack(
    runner: asyncio.Runner, strategy: st.SearchStrategy[Any], suffer: Suffer, *, inputs: int, chance: int
) -> int:
    """How many were sent. Raises AssertionError with the smallest attack that did harm."""
    count = 0

    @seed(chance)
    @settings(max_examples=inputs, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def attack(attack: Any) -> None:
        nonlocal count
        count += 1
        runner.run(suffer(attack))

    attack()
    return count


if __name__ == "__main__":
    main()
