"""USDC from outside: a demo with a real EVM node, and the command that it prints."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest_asyncio

from simulated_chain.rpc import ask
from simulated_chain.token import mint
from tests.acceptance.customers import Customer, new_customer
from tests.acceptance.running_demo import RunningDemo, place_for_demo, until

#: Compiled parts of what web3 brings.
BROUGHT_BY_WEB3 = ("ckzg", "pydantic_core")


class Wallet:
    """A customer of the demo, and coins."""

    def __init__(self, demo: RunningDemo, customer: Customer) -> None:
        self.demo = demo
        self.customer = customer
        self.url = demo.information.chain_url or ""
        self.token = demo.information.chain_token or ""

    async def get(self, path: str) -> Any:
        answer = await self.demo.http.get(path, headers=self.customer.bearer())
        assert answer.status == 200, answer
        return answer.json

    async def address(self) -> str:
        return str((await self.get("/v1/topup/usdc/chains"))[0]["deposit_address"])

    async def send(self, units: int, address: str) -> None:
        await asyncio.to_thread(mint, self.url, self.token, address, units)

    async def mine(self, blocks: int) -> None:
        await asyncio.to_thread(ask, self.url, "anvil_mine", hex(blocks))

    async def until_statuses(self, *statuses: str) -> Any:
        """The top-ups, newest first, once they have these statuses."""

        async def reached() -> Any:
            lines = await self.get("/v1/topup/history")
            return lines if [line["status"] for line in lines] == list(statuses) else None

        return await until(reached)

    async def until_topups(self, count: int) -> None:
        async def reached() -> bool:
            rows = await self.demo.fetch(
                "SELECT FROM events WHERE stream_id = $1 AND type = 'topup.requested'", self.customer.account_id
            )
            return len(rows) == count

        await until(reached)

    async def balance(self) -> Decimal:
        me = await self.demo.http.get("/v1/users/me", headers=self.customer.bearer(self.customer.session))
        return Decimal(me.json["credit_balance_cents"])


@pytest_asyncio.fixture(scope="module")
async def paying_demo() -> AsyncIterator[RunningDemo]:
    async with place_for_demo() as directory:
        demo = await RunningDemo.start(directory, workers=1, flags=["--payments"])
        try:
            yield demo
            await demo.assert_books_in_order()
            assert "Traceback" not in demo.output
            assert await demo.stop() == 0
            assert directory.processes() == []
            assert directory.leavings() == []
        finally:
            await demo.kill()


@pytest_asyncio.fixture
async def wallet(paying_demo: RunningDemo) -> Wallet:
    return Wallet(paying_demo, await new_customer(paying_demo))


async def test_the_printed_command_pays_in_and_the_deposit_is_credited(wallet: Wallet) -> None:
    before = await wallet.balance()
    address = await wallet.address()
    begin = wallet.demo.output.index("-m simulated_chain.pay")
    printed = wallet.demo.output[begin : wallet.demo.output.index("<deposit_address>", begin)]
    arguments = printed.replace("\\\n", " ").split()

    paying = await asyncio.create_subprocess_exec(sys.executable, *arguments, address)
    assert await paying.wait() == 0

    (line,) = await wallet.until_statuses("credited")
    assert (line["source"], line["amount_cents"]) == ("usdc", 2500)
    assert await wallet.balance() - before == 2500


async def test_a_worker_that_is_killed_over_and_over_credits_each_deposit_once(wallet: Wallet) -> None:
    before = await wallet.balance()
    address = await wallet.address()
    for amount in range(1, 6):
        await wallet.send(amount * 1_000_000, address)
        await wallet.mine(2)
        await wallet.until_topups(amount)  # just booked, and not noted yet
        for worker in wallet.demo.children("worker"):
            os.kill(worker, signal.SIGKILL)

    await wallet.until_statuses(*["credited"] * 5)

    assert await wallet.balance() - before == 1500
    events = await wallet.demo.fetch(
        "SELECT count(*) AS n FROM events WHERE stream_id = $1 AND type = 'topup.credited'",
        wallet.customer.account_id,
    )
    assert events[0]["n"] == 5


async def test_only_the_background_process_has_web3_in_it(paying_demo: RunningDemo, wallet: Wallet) -> None:
    await wallet.address()
    (gate,) = paying_demo.gate_workers

    async def is_loaded() -> bool:
        return any(all(name in mapped(pid) for name in BROUGHT_BY_WEB3) for pid in paying_demo.children("worker"))

    assert await until(is_loaded)
    assert [name for name in BROUGHT_BY_WEB3 if name in mapped(gate)] == []


def mapped(pid: int) -> str:
    """The files of a process that are in its memory."""
    return Path(f"/proc/{pid}/maps").read_text()
