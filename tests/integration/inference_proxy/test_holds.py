"""A hold whose settlement cannot be written ahead: its request goes on, and the log is told once."""

from pathlib import Path

from structlog.testing import capture_logs

from inference_proxy.holds import RequestHold
from inference_proxy.prices import RequestPrice
from inference_proxy.progress import Progress
from inference_proxy.write_ahead import FIRST_SLOTS, HEADER_SIZE, SLOT_SIZE, WriteAheadFile, write_ahead_files
from ledger import Ledger
from ledger.events import HoldSettled
from pricing import PricedProgram, parse_program
from tests.strategies import PRICE
from tests.unit.inference_proxy.disks import largest_file
from tests.unit.ledger.scenes import grant, open_account, place

PROGRAM = 'id = "p"\ncurrency = "USD"\n[[charges]]\nname = "c"\nmeter = "output_tokens"\nprice = 1\nper = 100_000_000\n'


async def test_a_disk_that_is_full_is_told_once_for_a_request_and_costs_it_nothing(
    ledger: Ledger, tmp_path: Path
) -> None:
    await ledger.submit(open_account())
    await ledger.submit(grant(100))
    price = RequestPrice(PricedProgram(parse_program(PROGRAM), PRICE), {})
    write_ahead = WriteAheadFile.open(tmp_path, 7)
    taken = [write_ahead.put(None, b"of another request") for _ in range(FIRST_SLOTS)]
    progress = Progress(lambda: 0.0)
    hold = RequestHold(ledger, place("hold_1", 50), price, progress, write_ahead, is_repeatable=False)
    await hold.place()

    with largest_file(HEADER_SIZE + FIRST_SLOTS * SLOT_SIZE), capture_logs() as logs:
        for tokens in (1, 2, 3):
            assert hold.delivered({"output_tokens": tokens}, backend="gpu-1")
        settled = await hold.settle({"output_tokens": 4}, outcome="completed", backend="gpu-1")

    assert [log["event"] for log in logs].count("settlement.not_written_ahead") == 1
    assert settled is not None
    assert isinstance(settled.stored.event, HoldSettled)
    assert settled.stored.event.amount_microcents == 4
    for slot in taken:
        write_ahead.free(slot)
    write_ahead.close()
    assert write_ahead_files(tmp_path) == []
