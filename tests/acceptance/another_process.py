"""What another process of the demo would ask of its ledger: a sweep on another host, a gate's successor."""

from datetime import UTC, datetime
from typing import Any

import asyncpg

from ledger import Ledger
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
