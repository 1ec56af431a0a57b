"""What another process of the demo would ask of its ledger: a sweep on another host, a gate's successor."""

from datetime import UTC, datetime
from typing import Any

import asyncpg

from ledger import ExpireHold, Ledger, PlaceHold, PriceRef, SettleHold, microcents_from_cents
from tests.acceptance.customers import MODEL, Customer
from tests.acceptance.running_demo import RunningDemo
from tests.conftest import APP_SETTINGS


async def submit(demo: RunningDemo, *commands: Any) -> None:
    async with asyncpg.create_pool(demo.postgres_url, min_size=1, server_settings=APP_SETTINGS) as pool:
        ledger = await Ledger.open(
            pool,
            lambda: asyncpg.connect(demo.postgres_url, server_settings=APP_SETTINGS),
            lambda: datetime.now(UTC),
        )
        for command in commands:
            await ledger.submit(command)
        await ledger.close()


def expired_and_settled_late(customer: Customer, hold_id: str, charge: Any) -> list[Any]:
    """What a gate, the sweep and the gate's successor ask of the ledger for a hold that costs as much as the charge."""
    program, version = charge["program"].split("@")
    hold: dict[str, Any] = {"stream_id": customer.account_id, "hold_id": hold_id}
    amount = microcents_from_cents(charge["charged_cents"])
    return [
        PlaceHold(
            **hold,
            amount_microcents=amount,
            operation="chat.completions",
            model=MODEL,
            price=PriceRef(program=program, version=int(version), digest=charge["digest"]),
            worker_id=1,
            lifetime_s=60,
            key_id=customer.key.id,
            retry_count=2,
        ),
        ExpireHold(**hold, reason="worker_gone"),
        SettleHold(
            **hold,
            amount_microcents=amount,
            usage=charge["usage"],
            outcome="client_gone",
            backend="gpu-1",
            served={"delivered": 3},
            key_id=customer.key.id,
        ),
    ]
