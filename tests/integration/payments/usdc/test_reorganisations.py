"""Blocks that leave the chain, on a real node: before a deposit counts, and after."""

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from ledger import Ledger
from ledger.events import TopupFailed, TopupReversed
from payments.usdc.booking import DepositBooking
from payments.usdc.deposits import Deposit, Transfer
from tests.conftest import Clock
from tests.integration.payments.conftest import Payer, trial_balance

from .dev_chain import DevChain
from .till import CONFIRMATIONS, UsdcTill, open_usdc_till


def reorganisations(before: str) -> float:
    return REGISTRY.get_sample_value("tollgate_usdc_reorganisations_total", {"chain": "dev", "before": before}) or 0


async def test_a_pending_deposit_that_leaves_the_chain_fails_once_it_had_its_time_to_return(
    till: UsdcTill, payer: Payer, address: str
) -> None:
    counted = reorganisations("pending")
    await till.dev.pay(address)
    await till.look()
    assert await till.status_of(payer) == "pending"

    await till.dev.reorganise(1)
    await till.look()
    (deposit,) = await till.deposits(payer)
    assert (deposit["status"], deposit["confirmations"]) == ("pending", 0)
    assert reorganisations("pending") == counted + 1
    await till.dev.mine(CONFIRMATIONS - 1)
    await till.look()
    assert await till.status_of(payer) == "pending"
    await till.dev.mine(1)
    await till.look()

    assert await till.status_of(payer) == "failed"
    assert await till.credited(payer) == 0
    failed = (await till.ledger.stream(payer.account_id))[-1].event
    assert isinstance(failed, TopupFailed)
    assert "has left the chain" in failed.reason


async def test_a_pending_deposit_that_moves_to_another_block_is_pending_there_and_credited_once(
    till: UsdcTill, payer: Payer, address: str
) -> None:
    transaction = await till.dev.pay(address)
    await till.dev.mine(1)
    await till.look()
    ((before,), raw) = (await till.deposits(payer), await till.dev.raw(transaction))

    await till.dev.reorganise(2, (raw, 1))
    await till.look()

    (moved,) = await till.deposits(payer)
    assert moved["transaction"] == transaction
    assert (moved["block_number"], moved["status"]) == (before["block_number"] + 1, "pending")
    assert await till.events_of(payer) == ["topup.requested", "topup.pending"]
    await till.confirm()
    assert await till.credited(payer) == 2500
    assert await till.events_of(payer) == ["topup.requested", "topup.pending", "topup.credited"]


async def test_a_deposit_that_moves_to_another_place_of_its_block_is_another_top_up(
    till: UsdcTill, payer: Payer, address: str
) -> None:
    other = await till.dev.pay("0x" + "22" * 20, 1)
    transaction = await till.dev.pay(address)
    await till.look()
    (before,) = await till.deposits(payer)

    raws = [await till.dev.raw(one) for one in (other, transaction)]
    await till.dev.reorganise(2, (raws[0], 1), (raws[1], 1))
    await till.look()
    await till.dev.mine(CONFIRMATIONS)
    await till.look()

    lines = await till.history(payer)
    assert sorted(line["status"] for line in lines) == ["credited", "failed"]
    (after,) = [deposit for deposit in await till.deposits(payer) if deposit["status"] == "credited"]
    assert after["log_index"] != before["log_index"]
    assert await till.credited(payer) == 2500


async def test_a_deposit_that_failed_and_comes_back_is_credited_all_the_same(
    till: UsdcTill, payer: Payer, address: str
) -> None:
    transaction = await till.dev.pay(address)
    await till.look()
    raw = await till.dev.raw(transaction)
    await till.dev.reorganise(1)
    await till.look()
    await till.dev.mine(CONFIRMATIONS)
    await till.look()
    assert await till.status_of(payer) == "failed"

    await till.dev.send(raw)
    await till.dev.mine(CONFIRMATIONS)
    await till.look()

    assert await till.status_of(payer) == "credited"
    assert await till.credited(payer) == 2500


async def test_a_reorganisation_deeper_than_the_confirmations_is_an_alert_and_a_reversal_and_undone_if_it_returns(
    till: UsdcTill, payer: Payer, address: str
) -> None:
    counted = reorganisations("credited")
    transaction = await till.dev.pay(address)
    await till.confirm()
    assert await till.credited(payer) == 2500
    await till.spend(payer, 2000)
    raw = await till.dev.raw(transaction)

    await till.dev.reorganise(CONFIRMATIONS + 1)
    with capture_logs() as logs:
        await till.look()

    assert await till.credited(payer) == -2000  # of which the spending is an adjustment, too
    assert reorganisations("credited") == counted + 1
    assert {log["event"] for log in logs if log["log_level"] == "error"} == {"usdc.reorganised_deep", "usdc.reversed"}
    (line,) = await till.history(payer)
    assert (line["status"], line["reversed_cents"]) == ("reversed", 2500)
    reversed_ = (await till.ledger.stream(payer.account_id))[-1].event
    assert isinstance(reversed_, TopupReversed)
    assert reversed_.kind == "reorganisation"

    await till.dev.send(raw)
    await till.look()
    assert await till.status_of(payer) == "reversed"  # not deep enough
    await till.confirm()

    assert await till.status_of(payer) == "credited"
    assert await till.credited(payer) == 500
    assert await trial_balance(till.ledger.pool) == 0


async def test_a_credited_deposit_that_only_moves_is_neither_reversed_nor_credited_again(
    till: UsdcTill, payer: Payer, address: str
) -> None:
    transaction = await till.dev.pay(address)
    await till.confirm()
    raw = await till.dev.raw(transaction)

    await till.dev.reorganise(CONFIRMATIONS + 1, (raw, 2))
    await till.look()
    await till.dev.mine(CONFIRMATIONS)
    await till.look()

    assert await till.credited(payer) == 2500
    assert await till.events_of(payer) == ["topup.requested", "topup.pending", "topup.credited"]


async def test_a_deposit_that_stands_only_on_the_new_side_of_a_deep_reorganisation_is_found(
    till: UsdcTill, payer: Payer, address: str
) -> None:
    await till.dev.pay("0x" + "22" * 20)
    await till.confirm()
    await till.dev.mine(CONFIRMATIONS)
    await till.look()
    transaction = await till.dev.pay(address)
    raw = await till.dev.raw(transaction)

    await till.dev.reorganise(CONFIRMATIONS + 3, (raw, 0))  # not the payment to nobody, which raw comes after
    await till.look()

    assert await till.credited(payer) == 2500


async def test_the_same_block_may_leave_and_return_more_than_once(till: UsdcTill, payer: Payer, address: str) -> None:
    raw = await till.dev.raw(await till.dev.pay(address))
    await till.confirm()
    for _ in range(3):
        await till.dev.reorganise(CONFIRMATIONS + 1)
        await till.look()
        assert await till.credited(payer) == 0
        await till.dev.send(raw)
        await till.confirm()
        assert await till.credited(payer) == 2500

    assert await trial_balance(till.ledger.pool) == 0


async def test_the_very_same_block_may_return_and_leave_again(till: UsdcTill, payer: Payer, address: str) -> None:
    """Booked without a chain: the node gives no block of its own the same hash twice."""
    booking = DepositBooking(till.ledger, till.rates, till.clock)
    transfer = Transfer(
        tx_hash="0x01", log_index=0, block_number=7, block_hash="0x02", address=address, units=25_000_000
    )
    deposit = Deposit(
        chain_id=1,
        transfer=transfer,
        account_id=payer.account_id,
        seen_at=till.clock.now,
        gone_at_block=9,
        status="credited",
    )
    for _ in range(3):
        till.clock.advance(seconds=1)
        await booking.credit(deposit)
        await booking.credit(deposit)
        assert await till.credited(payer) == 2500
        await booking.reverse(deposit)
        till.clock.advance(seconds=1)
        await booking.reverse(deposit)
        assert await till.credited(payer) == 0


@pytest.mark.parametrize("depth", [1, 3, 6])
async def test_watchers_of_two_processes_book_a_reorganisation_once(
    ledger: Ledger, clock: Clock, dev: DevChain, depth: int
) -> None:
    async with open_usdc_till(ledger, clock, dev) as till, till.another_watcher() as second:
        payer = await till.payer()
        await dev.pay(await till.address(payer))
        await dev.mine(depth - 1)
        await till.look()
        await dev.reorganise(depth + 1)
        for _ in range(3):
            await till.look()
            await till.look(second)
            await dev.mine(CONFIRMATIONS)

        assert await till.credited(payer) == 0
        ended = (await till.events_of(payer))[2:]
        assert ended == (["topup.failed"] if depth < CONFIRMATIONS else ["topup.credited", "topup.reversed"])
