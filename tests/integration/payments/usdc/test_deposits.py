"""Deposits of USDC from the address to the credit, on a real EVM node."""

import asyncio
import hashlib
import hmac
from decimal import Decimal
from typing import Any

import pytest
from eth_keys.datatypes import PrivateKey

from ledger import Ledger
from ledger.events import DepositAddressAssigned, TopupRequested
from simulated_chain.token import call_data
from tests.conftest import Clock
from tests.integration.payments.conftest import Payer, trial_balance

from .dev_chain import DevChain
from .till import CONFIRMATIONS, SECRET, UsdcTill, open_usdc_till


async def test_an_account_has_one_address_whose_key_only_the_wallet_has(till: UsdcTill, payer: Payer) -> None:
    (chain,) = await till.chains(payer)

    (again,) = await till.chains(payer)

    assert again == chain
    assert (chain["name"], chain["chain_id"], chain["token"]) == ("dev", till.dev.chain_id, till.dev.token)
    assert (chain["required_confirmations"], chain["finality"]) == (CONFIRMATIONS, "confirmations")
    assert chain["minimum_usdc"] == 1
    assigned = (await till.ledger.stream(payer.account_id))[-1].event
    assert isinstance(assigned, DepositAddressAssigned)
    assert assigned.address == chain["deposit_address"]
    private_key = PrivateKey(till.wallet.get_privkey_from_path([0, assigned.index]))
    assert private_key.public_key.to_checksum_address() == assigned.address
    assert till.wallet.get_xpub() not in str(await till.ledger.stream(payer.account_id))


async def test_accounts_that_ask_at_once_get_addresses_of_their_own_one_after_the_other(till: UsdcTill) -> None:
    payers = [await till.payer() for _ in range(6)]

    addresses = await asyncio.gather(*[till.address(payer) for payer in payers * 3])

    assert len(set(addresses)) == 6
    for number, payer in enumerate(payers):
        assert {addresses[number], addresses[number + 6], addresses[number + 12]} == {await till.address(payer)}
    indexes = await till.ledger.pool.fetch(
        "SELECT (payload ->> 'index')::int FROM events WHERE type = 'deposit_address.assigned'"
    )
    assert sorted(row[0] for row in indexes) == list(range(6))


async def test_a_deposit_is_pending_with_its_confirmations_and_then_credited_once(
    till: UsdcTill, payer: Payer, address: str
) -> None:
    transaction = await till.dev.pay(address, 25_000_001)
    await till.look()

    assert await till.credited(payer) == 0
    (line,) = await till.history(payer)
    assert (line["source"], line["status"], line["amount_cents"]) == ("usdc", "pending", Decimal("2500.0001"))
    (deposit,) = await till.deposits(payer)
    assert (deposit["status"], deposit["confirmations"], deposit["usdc"]) == ("pending", 1, Decimal("25.000001"))
    assert (deposit["transaction"], deposit["topup_id"]) == (transaction, line["id"])

    await till.confirm()
    await till.look()

    assert await till.credited(payer) == Decimal("2500.0001")
    assert await till.events_of(payer) == ["topup.requested", "topup.pending", "topup.credited"]
    (line,) = await till.history(payer)
    assert (line["status"], line["reference_id"]) == (
        "credited",
        f"{till.dev.chain_id}:{transaction}:{deposit['log_index']}",
    )
    assert await trial_balance(till.ledger.pool) == 0


async def test_a_deposit_one_block_short_is_not_credited(till: UsdcTill, payer: Payer, address: str) -> None:
    await till.dev.pay(address)
    await till.dev.mine(CONFIRMATIONS - 2)
    await till.look()
    assert await till.status_of(payer) == "pending"

    await till.dev.mine(1)
    await till.look()
    assert await till.status_of(payer) == "credited"


async def test_deposits_to_old_addresses_and_several_in_a_block_are_all_credited(
    till: UsdcTill, payer: Payer, address: str
) -> None:
    newer = (await till.call("POST", "/v1/topup/usdc/address", payer.secret)).body["deposit_address"]
    assert newer != address
    assert await till.address(payer) == newer
    await till.dev.ask("evm_setAutomine", False)
    try:
        banker = (await till.dev.ask("eth_accounts"))[0]
        for to in (address, newer, address):
            call = {
                "from": banker,
                "to": till.dev.token,
                "data": call_data("mint(address,uint256)", to, 2_000_000),
                "gas": hex(200_000),
            }
            await till.dev.ask("eth_sendTransaction", call)
        await till.dev.mine(1)
    finally:
        await till.dev.ask("evm_setAutomine", True)

    await till.confirm()

    assert await till.credited(payer) == 600
    assert len(await till.deposits(payer)) == 3


async def test_other_tokens_nothing_and_dust_are_never_credited(till: UsdcTill, payer: Payer, address: str) -> None:
    await till.dev.pay(address, token=await till.dev.other_token())
    await till.dev.pay(address, 0)
    await till.dev.pay(address, 999_999)

    await till.confirm()

    assert await till.credited(payer) == 0
    assert await till.history(payer) == []
    (dust,) = await till.deposits(payer)
    assert (dust["status"], dust["usdc"]) == ("dust", Decimal("0.999999"))


async def test_an_account_in_another_currency_is_credited_at_the_rate_of_the_moment(till: UsdcTill) -> None:
    payer = await till.payer("CNY")
    await till.dev.pay(await till.address(payer), 1_000_001)
    await till.look()
    till.rates.yuan = Decimal("9")
    await till.confirm()

    assert await till.credited(payer) == Decimal("710.00071")
    requested = next(s.event for s in await till.ledger.stream(payer.account_id) if isinstance(s.event, TopupRequested))
    assert requested.exchange_rate == Decimal("7.1")
    assert (requested.rate_source or "").startswith("price book at 20")


async def test_without_a_rate_it_is_a_break_that_is_credited_once_there_is_one(till: UsdcTill) -> None:
    payer = await till.payer("CNY")
    till.rates.yuan = None
    await till.dev.pay(await till.address(payer))
    await till.confirm()

    assert await till.credited(payer) == 0
    assert "rate" in await till.ledger.pool.fetchval("SELECT problem FROM usdc_deposits")

    till.rates.yuan = Decimal("7")
    await till.look()
    assert await till.credited(payer) == 17_500
    assert await till.ledger.pool.fetchval("SELECT problem FROM usdc_deposits") is None


async def test_finality_of_the_chain_itself(ledger: Ledger, clock: Clock, dev: DevChain) -> None:
    async with open_usdc_till(ledger, clock, dev, confirmations=None) as till:
        payer = await till.payer()
        (chain,) = await till.chains(payer)
        assert (chain["required_confirmations"], chain["finality"]) == (None, "finalized")
        await dev.pay(await till.address(payer))
        await dev.mine(63)  # the node calls a block final that is 64 below its head
        await till.look()
        assert await till.status_of(payer) == "pending"

        await dev.mine(1)
        await till.look()
        assert await till.status_of(payer) == "credited"


async def test_many_watchers_at_once_credit_once(till: UsdcTill, payer: Payer, address: str) -> None:
    for _ in range(3):
        await till.dev.pay(address, 1_000_000)
    await till.dev.mine(CONFIRMATIONS)
    async with till.another_watcher() as second, till.another_watcher(largest_range=7) as third:
        scan = (await till.watcher._store.scans())[till.dev.chain_id]
        watchers = (till.watcher, second, third) * 2
        await asyncio.gather(*[watcher.look(scan) for watcher in watchers], return_exceptions=True)
        await till.look()

    assert await till.credited(payer) == 300
    assert (await till.events_of(payer)).count("topup.credited") == 3
    assert await trial_balance(till.ledger.pool) == 0


async def test_a_push_wakes_the_watcher_and_credits_nothing(till: UsdcTill, payer: Payer, address: str) -> None:
    await till.look()
    assert not await till.watcher.look_if_due()
    body = b'{"event": {"activity": [{"toAddress": "%s", "value": 1000000}]}}' % address.encode()

    answer = await till.push(body, hmac.digest(SECRET.encode(), body, hashlib.sha256).hex())

    assert (answer.status, answer.body) == (200, {"received": True})
    assert await till.watcher.look_if_due()
    assert await till.history(payer) == []


@pytest.mark.parametrize("signature", ["", "00" * 32, "ÿ", hmac.digest(b"other", b"{}", hashlib.sha256).hex()])
async def test_a_forged_push_is_refused(till: UsdcTill, signature: str) -> None:
    await till.look()

    answer = await till.push(b"{}", signature)

    assert (answer.status, answer.code) == (400, "invalid_request")
    assert not await till.watcher.look_if_due()


async def test_a_push_for_a_chain_without_a_secret_is_refused(ledger: Ledger, clock: Clock, dev: DevChain) -> None:
    signature = hmac.digest(b"", b"{}", hashlib.sha256).hex()
    async with open_usdc_till(ledger, clock, dev, webhook_secret=None) as till:
        assert (await till.push(b"{}", signature)).status == 503
        assert (await till.push(b"{}", signature, chain="other")).status == 404


async def test_without_a_key_every_route_of_usdc_is_off(ledger: Ledger, clock: Clock, dev: DevChain) -> None:
    async with open_usdc_till(ledger, clock, dev, configured=False) as till:
        payer = await till.payer()
        asked = [("GET", "chains"), ("POST", "address"), ("GET", "deposits"), ("POST", "webhook/dev")]
        answers = [await till.call(method, f"/v1/topup/usdc/{path}", payer.secret) for method, path in asked]

    assert {(answer.status, answer.code) for answer in answers} == {(503, "payments_not_configured")}


async def test_an_account_cannot_take_addresses_without_end(till: UsdcTill, payer: Payer, address: str) -> None:
    answers: list[Any] = [await till.call("POST", "/v1/topup/usdc/address", payer.secret) for _ in range(20)]

    assert [answer.status for answer in answers] == [201] * 19 + [409]
