"""Nodes that refuse, lag, lie and are away, over real sockets."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from ledger import Ledger
from payments import ProviderUnavailable
from payments.usdc.chain import final_transfers, open_nodes
from tests.conftest import Clock
from tests.integration.payments.conftest import Payer

from .dev_chain import DevChain
from .till import CONFIRMATIONS, UsdcTill, open_usdc_till


def failures(reason: str) -> float:
    samples = [s for metric in REGISTRY.collect() for s in metric.samples]
    name = "tollgate_usdc_node_failures_total"
    return sum(s.value for s in samples if s.name == name and s.labels["reason"] == reason)


def forged_log(till: UsdcTill, to: str, block: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A transfer that nobody made, in a block that is there."""
    return {
        "address": till.dev.token.lower(),
        "topics": [
            "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef",
            "0x" + "0" * 64,
            "0x" + to[2:].lower().rjust(64, "0"),
        ],
        "data": "0x" + f"{10**12:064x}",
        "blockHash": block["hash"],
        "blockNumber": block["number"],
        "transactionHash": "0x" + "ab" * 32,
        "transactionIndex": "0x0",
        "logIndex": "0x0",
        "removed": False,
        **changes,
    }


@pytest_asyncio.fixture
async def one(ledger: Ledger, clock: Clock, dev: DevChain) -> AsyncIterator[UsdcTill]:
    """With one node, which can be odd."""
    async with open_usdc_till(ledger, clock, dev, odd_nodes=1) as till:
        yield till


@pytest_asyncio.fixture
async def two(ledger: Ledger, clock: Clock, dev: DevChain) -> AsyncIterator[UsdcTill]:
    """With two nodes, which can be odd, and have to agree."""
    async with open_usdc_till(ledger, clock, dev, odd_nodes=2) as till:
        yield till


@pytest_asyncio.fixture
async def payer(one: UsdcTill) -> Payer:
    return await one.payer()


async def test_a_range_that_is_too_large_is_halved_until_it_is_not(one: UsdcTill, payer: Payer) -> None:
    address = await one.address(payer)
    await one.dev.pay(address)
    await one.dev.mine(100)
    one.odd[0].largest_range = 9

    await one.look()

    assert await one.credited(payer) == 2500
    spans = [
        int(said[0]["toBlock"], 16) - int(said[0]["fromBlock"], 16) + 1
        for method, said in one.odd[0].asked
        if method == "eth_getLogs"
    ]
    assert max(spans) > 9
    assert len([span for span in spans if span > 9]) < 60


async def test_a_node_that_does_not_answer_for_a_range_is_asked_for_less_and_then_left(one: UsdcTill) -> None:
    payer = await one.payer()
    await one.dev.pay(await one.address(payer))
    await one.dev.mine(CONFIRMATIONS)
    one.odd[0].largest_range = 0

    with pytest.raises(ProviderUnavailable):
        await one.look()

    one.odd[0].largest_range = None
    await one.look()
    assert await one.credited(payer) == 2500


async def test_a_node_that_lags_is_no_reorganisation_and_credits_nothing_early(one: UsdcTill, payer: Payer) -> None:
    address = await one.address(payer)
    await one.dev.pay(address)
    await one.dev.mine(CONFIRMATIONS - 1)
    one.odd[0].behind = 1
    await one.look()
    assert await one.status_of(payer) == "pending"

    one.odd[0].behind = 50
    with pytest.raises(ProviderUnavailable):
        await one.look()
    one.odd[0].behind = 2
    await one.look()
    assert (await one.status_of(payer), await one.credited(payer)) == ("pending", 0)
    one.odd[0].behind = 0
    await one.look()
    assert await one.credited(payer) == 2500


async def test_a_node_that_lags_behind_the_one_that_is_believed_is_no_reorganisation(two: UsdcTill) -> None:
    async with two.another_watcher(agreeing_nodes=1) as watcher:
        payer = await two.payer()
        await two.dev.pay(await two.address(payer))
        await two.dev.mine(CONFIRMATIONS + 10)
        await two.look(watcher)
        counted = failures("lagging")
        two.odd[0].behind = 8
        two.odd[0].answers = {"eth_getTransactionReceipt": None}

        with capture_logs() as logs:
            await two.look(watcher)

        assert [log for log in logs if log["log_level"] == "error"] == []
        assert failures("lagging") > counted
        assert (await two.deposits(payer))[0]["confirmations"] > 0
        assert await two.credited(payer) == 2500


async def test_a_node_that_lags_has_no_say_in_whether_a_transfer_is_true(two: UsdcTill) -> None:
    async with two.another_watcher(agreeing_nodes=1) as watcher:
        payer = await two.payer()
        await two.dev.pay(await two.address(payer))
        await two.look(watcher)
        await two.dev.mine(CONFIRMATIONS)
        two.odd[0].behind = CONFIRMATIONS + 1
        two.odd[0].answers = {"eth_getTransactionReceipt": None}

        await two.look(watcher)

        assert await two.credited(payer) == 2500


async def test_when_one_node_is_away_another_is_asked(two: UsdcTill) -> None:
    async with two.another_watcher(agreeing_nodes=1) as watcher:
        payer = await two.payer()
        await two.dev.pay(await two.address(payer))
        await two.dev.mine(CONFIRMATIONS)
        two.odd[0].is_away = True

        await two.look(watcher)

        assert await two.credited(payer) == 2500


async def test_a_node_that_is_silent_holds_nobody_up_for_ever(two: UsdcTill) -> None:
    async with two.another_watcher(agreeing_nodes=1, timeout_s=0.2) as watcher:
        payer = await two.payer()
        await two.dev.pay(await two.address(payer))
        await two.dev.mine(CONFIRMATIONS)
        two.odd[0].is_silent = True

        await two.look(watcher)

        assert await two.credited(payer) == 2500


async def test_where_two_have_to_agree_one_that_is_away_stops_the_credit(two: UsdcTill) -> None:
    payer = await two.payer()
    await two.dev.pay(await two.address(payer))
    await two.dev.mine(CONFIRMATIONS)
    two.odd[1].is_away = True
    with pytest.raises(ProviderUnavailable):
        await two.look()
    assert await two.credited(payer) == 0

    two.odd[1].is_away = False
    await two.look()
    assert await two.credited(payer) == 2500


async def test_a_node_of_another_chain_or_token_is_not_believed(one: UsdcTill) -> None:
    counted = failures("wrong_chain")
    one.odd[0].answers = {"eth_chainId": "0x1"}
    with pytest.raises(ProviderUnavailable):
        await one.look()
    assert failures("wrong_chain") == counted + 1

    one.odd[0].answers = {"eth_call": "0x" + f"{18:064x}"}  # decimals
    counted = failures("wrong_token")
    with pytest.raises(ProviderUnavailable):
        await one.look()
    assert failures("wrong_token") == counted + 1


@pytest.mark.parametrize(
    "answers",
    [
        {"eth_blockNumber": "0x-1"},
        {"eth_blockNumber": None},
        {"eth_getBlockByNumber": {"number": "0x1"}},
        {"eth_getBlockByNumber": []},
        {"eth_getLogs": {"no": "list"}},
        {"eth_getLogs": [{"topics": None}]},
        {"eth_getLogs": "0x"},
    ],
)
async def test_an_answer_that_makes_no_sense_is_a_failure_of_the_node(one: UsdcTill, answers: dict[str, Any]) -> None:
    payer = await one.payer()
    await one.dev.pay(await one.address(payer))
    await one.dev.mine(CONFIRMATIONS)
    one.odd[0].answers = answers

    with pytest.raises(ProviderUnavailable):
        await one.look()

    one.odd[0].answers = {}
    await one.look()
    assert await one.credited(payer) == 2500


async def test_a_transfer_that_one_node_makes_up_is_never_credited(two: UsdcTill) -> None:
    payer = await two.payer()
    address = await two.address(payer)
    await two.dev.mine(CONFIRMATIONS + 2)
    block = await two.dev.ask("eth_getBlockByNumber", hex(await two.dev.head() - CONFIRMATIONS - 1), False)
    two.odd[0].more_logs = [forged_log(two, address, block)]
    await two.look()
    await two.dev.mine(CONFIRMATIONS)
    await two.look()

    assert await two.credited(payer) == 0
    assert "chain: " in await two.ledger.pool.fetchval("SELECT problem FROM usdc_deposits")


async def test_a_transfer_that_nodes_do_not_agree_on_holds_no_other_up(two: UsdcTill) -> None:
    payer, other = await two.payer(), await two.payer()
    forged_to = await two.address(payer)
    block = await two.dev.ask("eth_getBlockByNumber", "latest", False)
    forged = forged_log(two, forged_to, block)
    two.odd[0].more_logs = [forged]
    two.odd[0].receipts = {forged["transactionHash"]: {"status": "0x1", "logs": [forged]}}
    await two.dev.pay(await two.address(other))
    await two.dev.mine(CONFIRMATIONS)

    with pytest.raises(ProviderUnavailable, match="nodes have to agree"):
        await two.look()

    assert (await two.credited(payer), await two.credited(other)) == (0, 2500)


@pytest.mark.parametrize(
    "changes",
    [
        {"removed": True},
        {"address": "0x" + "cc" * 20},
        {"topics": ["0x" + "dd" * 32] * 3},
        {"data": "0x" + "0" * 64},
    ],
)
async def test_logs_that_are_removed_or_of_others_are_none(one: UsdcTill, payer: Payer, changes: Any) -> None:
    address = await one.address(payer)
    block = await one.dev.ask("eth_getBlockByNumber", "latest", False)
    one.odd[0].more_logs = [forged_log(one, address, block, **changes)]

    await one.look()

    assert await one.deposits(payer) == []


async def test_a_node_that_says_that_it_is_far_ahead_moves_nothing(two: UsdcTill) -> None:
    payer = await two.payer()
    await two.dev.pay(await two.address(payer))
    two.odd[0].answers = {"eth_blockNumber": hex(10**9)}

    await two.look()

    assert (await two.status_of(payer), await two.credited(payer)) == ("pending", 0)
    assert await two.ledger.pool.fetchval("SELECT head FROM usdc_scans") == await two.dev.head()


async def test_logs_that_a_node_leaves_out_take_nothing_away(one: UsdcTill, payer: Payer) -> None:
    await one.dev.pay(await one.address(payer))
    await one.look()
    one.odd[0].answers = {"eth_getLogs": []}
    await one.look()
    assert (await one.status_of(payer), (await one.deposits(payer))[0]["confirmations"]) == ("pending", 1)

    one.odd[0].answers = {}
    await one.confirm()
    assert await one.credited(payer) == 2500


async def test_logs_that_one_node_leaves_out_are_had_from_another(two: UsdcTill) -> None:
    payer = await two.payer()
    address = await two.address(payer)
    await two.look()
    await two.dev.pay(address)
    await two.dev.mine(CONFIRMATIONS)
    two.odd[0].answers = {"eth_getLogs": []}
    two.odd[1].largest_range = 2

    await two.look()

    assert await two.credited(payer) == 2500


async def test_a_node_that_gives_no_logs_stops_nobody_where_others_do(two: UsdcTill) -> None:
    async with two.another_watcher(agreeing_nodes=1) as watcher:
        payer = await two.payer()
        await two.dev.pay(await two.address(payer))
        await two.dev.mine(CONFIRMATIONS)
        two.odd[0].largest_range = 0
        counted = failures("range")

        await two.look(watcher)

        assert await two.credited(payer) == 2500
        assert failures("range") > counted


async def test_what_is_final_between_two_moments_is_told_whatever_was_booked(one: UsdcTill, payer: Payer) -> None:
    address = await one.address(payer)
    first = await one.dev.pay(address, 5)
    second = await one.dev.pay(address, 7_000_000)
    await one.dev.mine(CONFIRMATIONS - 1)
    await one.dev.pay(address, 9)
    block = await one.dev.ask("eth_getTransactionReceipt", second)
    at = datetime.fromtimestamp(
        int((await one.dev.ask("eth_getBlockByHash", block["blockHash"], False))["timestamp"], 16), UTC
    )

    async with open_nodes(one.chain_config) as nodes:
        told = await final_transfers(nodes, one.ledger, start=at - timedelta(hours=1), until=at + timedelta(hours=1))
        none = await final_transfers(nodes, one.ledger, start=at + timedelta(hours=1), until=at + timedelta(hours=2))
        later = await final_transfers(nodes, one.ledger, start=at, until=at + timedelta(hours=1))

    assert [(t.tx_hash, t.units) for t in told] == [(first, 5), (second, 7_000_000)]
    assert (told[1].at, told[1].address, told[1].account_id, told[1].chain) == (at, address, payer.account_id, "dev")
    assert none == []
    assert second in [t.tx_hash for t in later]


async def test_thousands_of_addresses_are_asked_for_in_few_questions(one: UsdcTill, payer: Payer) -> None:
    address = await one.address(payer)
    await one.ledger.pool.execute(
        "INSERT INTO events (shard, position, stream_id, seq, type, at, payload)"
        " SELECT 0, 1000 + n, 'acct_many', n, 'deposit_address.assigned', now(),"
        " json_build_object('index', 1000 + n, 'address', '0x' || lpad(to_hex(n), 40, '0'), 'key_fingerprint', '')"
        " FROM generate_series(1, 2000) n"
    )
    await one.dev.pay(address)
    await one.dev.mine(CONFIRMATIONS)
    one.odd[0].asked.clear()

    await one.look()

    assert await one.credited(payer) == 2500
    assert len([method for method, _ in one.odd[0].asked if method == "eth_getLogs"]) <= 3 * 5
