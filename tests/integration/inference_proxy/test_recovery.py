"""What a dead process left in its write-ahead file is settled once, whoever recovers it and however often."""

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from inference_proxy.recovery import AT_ONCE, encode_settlement, recover, recover_regularly
from inference_proxy.write_ahead import HEADER_SIZE, SLOT_SIZE, WriteAheadFile
from ledger import Committed, Ledger, LedgerCorrupt, SettleHold
from tests.conftest import Clock, Connect
from tests.integration.ledger.stored import broken_rules
from tests.unit.ledger.scenes import A, expire, grant, open_account, place, settle, void

USAGE = {"input_tokens": 100, "seconds": Decimal("0.12345678901234567890")}  # more than a float holds


@pytest_asyncio.fixture
async def books(ledger: Ledger) -> Ledger:
    """A ledger with credit and three open holds."""
    await ledger.submit(open_account())
    await ledger.submit(grant(1_000))
    for hold_id in ("hold_1", "hold_2", "hold_3"):
        await ledger.submit(place(hold_id, 100))
    return ledger


def left_behind(directory: Path, *records: SettleHold | bytes, worker_id: int = 7) -> Path:
    """The file of a process that put these records and ended."""
    file = WriteAheadFile.open(directory, worker_id)
    for record in records:
        file.put(None, record if isinstance(record, bytes) else encode_settlement(record))
    file.close()
    return file.path


def files_in(directory: Path) -> dict[str, bytes]:
    """The content of every file by its name."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}


async def charges(ledger: Ledger, *hold_ids: str) -> list[int | None]:
    """What each hold was charged; None for one that was not."""
    events = [stored.event for stored in await ledger.stream(A)]
    settled = {event.hold_id: event.amount_microcents for event in events if "Settled" in type(event).__name__}
    return [settled.get(hold_id) for hold_id in hold_ids]


@pytest.mark.money_bug(42)
async def test_what_was_left_is_settled_and_its_file_is_gone(
    books: Ledger, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    left_behind(tmp_path, settle("hold_1", 60, usage=USAGE), settle("hold_2", 120), worker_id=7)
    left_behind(tmp_path, settle("hold_3", 0), worker_id=8)

    with capture_logs() as logs:
        recovered = await recover(tmp_path, books.submit)

    assert recovered == 3
    assert files_in(tmp_path) == {}
    assert await charges(books, "hold_1", "hold_2", "hold_3") == [60, 120, 0]
    (event,) = [stored.event for stored in await books.events_of_hold(A, "hold_1") if stored.seq > 5]
    assert event.usage == USAGE
    assert await broken_rules(admin) == []
    assert [log["event"] for log in logs].count("settlement.recovered") == 3


async def test_the_same_file_again_is_one_charge(books: Ledger, tmp_path: Path) -> None:
    path = left_behind(tmp_path, settle("hold_1", 60, usage=USAGE))
    content = path.read_bytes()

    recovered = [await recover(tmp_path, books.submit)]
    path.write_bytes(content)  # as if the machine had lost its power before the file was gone
    recovered.append(await recover(tmp_path, books.submit))

    assert recovered == [1, 0]
    assert files_in(tmp_path) == {}
    state = await books.account(A)
    assert state is not None
    assert state.spent == 60


async def test_processes_that_recover_at_once_settle_each_file_once(
    books: Ledger, pool: asyncpg.Pool, connect: Connect, clock: Clock, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    await books.submit(grant(1_000_000, key="more"))
    holds = [f"hold_of_{worker}_{n}" for worker in range(5) for n in range(80)]
    await asyncio.gather(*[books.submit(place(hold_id, 100)) for hold_id in holds])
    for worker in range(5):
        mine = [settle(hold_id, 60) for hold_id in holds if hold_id.startswith(f"hold_of_{worker}_")]
        left_behind(tmp_path, *mine, worker_id=worker)
    other = await Ledger.open(pool, connect, clock)

    recovered = await asyncio.gather(*[recover(tmp_path, each.submit) for each in (books, other) for _ in range(3)])
    await other.close()

    assert sum(recovered) == len(holds)
    assert files_in(tmp_path) == {}
    assert [60] * len(holds) == await charges(books, *holds)
    assert await broken_rules(admin) == []


async def test_the_file_of_a_living_process_is_not_touched(books: Ledger, tmp_path: Path) -> None:
    file = WriteAheadFile.open(tmp_path, 7)
    file.put(None, encode_settlement(settle("hold_1", 60)))

    while_it_lives = await recover(tmp_path, books.submit), await charges(books, "hold_1")
    file.close()
    afterwards = await recover(tmp_path, books.submit), await charges(books, "hold_1")

    assert while_it_lives == (0, [None])
    assert afterwards == (1, [60])


@pytest.mark.money_bug(19)
async def test_what_postgres_is_away_for_waits_for_the_next_time(
    books: Ledger, pool: asyncpg.Pool, connect: Connect, clock: Clock, tmp_path: Path
) -> None:
    path = left_behind(tmp_path, *[settle(f"hold_{n}", 60) for n in (1, 2, 3)])
    stopped = await Ledger.open(pool, connect, clock)
    await stopped.close()

    async def first_one_then_away(command: SettleHold) -> Committed:
        return await (books if command.hold_id == "hold_1" else stopped).submit(command)

    first = await recover(tmp_path, first_one_then_away)
    was_kept = path.exists()
    second = await recover(tmp_path, books.submit)

    assert (first, was_kept, second) == (1, True, 2)
    assert await charges(books, "hold_1", "hold_2", "hold_3") == [60, 60, 60]
    assert files_in(tmp_path) == {}


async def test_a_hold_that_ended_otherwise_is_left_as_it_is(books: Ledger, tmp_path: Path) -> None:
    await books.submit(settle("hold_1", 70))
    await books.submit(void("hold_2"))
    left_behind(tmp_path, settle("hold_1", 60), settle("hold_2", 60), settle("hold_9", 60), settle("hold_3", 60))

    with capture_logs() as logs:
        recovered = await recover(tmp_path, books.submit)

    assert recovered == 1
    assert await charges(books, "hold_1", "hold_2", "hold_9", "hold_3") == [70, None, None, 60]
    assert files_in(tmp_path) == {}
    dropped = {log["hold_id"] for log in logs if log["event"] == "settlement.not_recovered"}
    assert dropped == {"hold_1", "hold_2", "hold_9"}


async def test_a_hold_that_the_sweep_was_quicker_to_end_is_settled_late_and_once(
    books: Ledger, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    await books.submit(expire("hold_1"))
    path = left_behind(tmp_path, settle("hold_1", 60, usage=USAGE))
    content = path.read_bytes()

    recovered = [await recover(tmp_path, books.submit)]
    path.write_bytes(content)
    recovered.append(await recover(tmp_path, books.submit))

    assert recovered == [1, 0]
    assert await charges(books, "hold_1") == [60]
    assert await broken_rules(admin) == []


def _overwrite(path: Path, start: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(content)


def _slot(number: int) -> int:
    return HEADER_SIZE + number * SLOT_SIZE


#: How a file with the settlements of hold_1, hold_2 and hold_3 was damaged, and which of them are left in it.
DAMAGES: dict[str, tuple[Any, list[int | None]]] = {
    "garbage": (lambda path: path.write_bytes(bytes(range(256)) * 100), [None] * 3),
    "a line of text": (lambda path: path.write_text("not ours\n"), [None] * 3),
    "empty": (lambda path: path.write_bytes(b""), [None] * 3),
    "another format": (lambda path: _overwrite(path, 0, b"tollgate write-ahead file 0\n"), [60, 60, 60]),
    "without its header": (lambda path: _overwrite(path, 0, bytes(HEADER_SIZE)), [60, 60, 60]),
    "truncated in a slot": (lambda path: _truncate(path, _slot(2) + 100), [60, 60, None]),
    "truncated between slots": (lambda path: _truncate(path, _slot(1)), [60, None, None]),
    "truncated in its header": (lambda path: _truncate(path, 10), [None] * 3),
    "a slot of garbage": (lambda path: _overwrite(path, _slot(1), b"\xa5" * SLOT_SIZE), [60, None, 60]),
    "a slot of ones": (lambda path: _overwrite(path, _slot(1), b"\xff" * SLOT_SIZE), [60, None, 60]),
}


def _truncate(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        file.truncate(size)


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damaged_file_is_set_aside_and_what_is_whole_in_it_is_settled(
    books: Ledger, admin: asyncpg.Connection, tmp_path: Path, damage: str
) -> None:
    path = left_behind(tmp_path, *[settle(f"hold_{n}", 60) for n in (1, 2, 3)])
    do_damage, left = DAMAGES[damage]
    do_damage(path)
    damaged = path.read_bytes()

    with capture_logs() as logs:
        recovered = await recover(tmp_path, books.submit)
        again = await recover(tmp_path, books.submit)

    assert (recovered, again) == (sum(each is not None for each in left), 0)
    assert left == await charges(books, "hold_1", "hold_2", "hold_3")
    assert files_in(tmp_path) == {"7.broken": damaged}
    assert [log["event"] for log in logs].count("write_ahead_file.broken") == 1
    assert await broken_rules(admin) == []


@pytest.mark.parametrize("record", [b"not JSON", b"{}", b'{"type": "VoidHold"}', b"[" * 2_000, b"\xff"])
async def test_a_record_that_is_no_settlement_is_kept_for_somebody_to_look_into(
    books: Ledger, tmp_path: Path, record: bytes
) -> None:
    left_behind(tmp_path, settle("hold_1", 60), record, settle("hold_2", 60))

    recovered = await recover(tmp_path, books.submit)

    assert recovered == 2
    assert await charges(books, "hold_1", "hold_2") == [60, 60]
    assert files_in(tmp_path).keys() == {"7.broken"}


async def test_a_settlement_that_the_books_cannot_take_does_not_keep_the_others_from_them(
    books: Ledger, tmp_path: Path
) -> None:
    left_behind(tmp_path, *[settle(f"hold_{n}", 60) for n in (1, 2, 3)])

    async def corrupt_for_one(command: SettleHold) -> Committed:
        if command.hold_id == "hold_2":
            raise LedgerCorrupt("a state is behind its events")
        return await books.submit(command)

    recovered = await recover(tmp_path, corrupt_for_one)

    assert recovered == 2
    assert await charges(books, "hold_1", "hold_2", "hold_3") == [60, None, 60]
    assert files_in(tmp_path).keys() == {"7.broken"}


async def test_a_file_that_cannot_be_read_does_not_keep_the_others_from_being_recovered(
    books: Ledger, tmp_path: Path
) -> None:
    (tmp_path / "1.wal").mkdir()
    left_behind(tmp_path, settle("hold_1", 60))

    with capture_logs() as logs:
        recovered = await recover(tmp_path, books.submit)

    assert recovered == 1
    assert [log["file"] for log in logs if log["event"] == "write_ahead_file.not_recovered"] == ["1.wal"]


async def test_more_than_fits_into_one_group_is_settled(books: Ledger, tmp_path: Path) -> None:
    await books.submit(grant(1_000_000, key="more"))
    holds = [f"one_of_many_{n}" for n in range(2 * AT_ONCE + 1)]
    await asyncio.gather(*[books.submit(place(hold_id, 100)) for hold_id in holds])
    left_behind(tmp_path, *[settle(hold_id, 60) for hold_id in holds])

    assert len(holds) == await recover(tmp_path, books.submit)
    assert [60] * len(holds) == await charges(books, *holds)


async def test_without_a_directory_there_is_nothing_to_recover(books: Ledger, tmp_path: Path) -> None:
    assert await recover(tmp_path / "not there", books.submit) == 0


async def test_the_loop_goes_on_whatever_fails_until_it_is_cancelled(books: Ledger, tmp_path: Path) -> None:
    class UnsteadyDirectory(type(tmp_path)):  # type: ignore[misc]
        """Cannot be listed the first time."""

        listed = 0

        def glob(self, pattern: str) -> Any:
            self.__class__.listed += 1
            if self.__class__.listed == 1:
                raise MemoryError
            return super().glob(pattern)

    left_behind(tmp_path, settle("hold_1", 60))
    settled = asyncio.Event()

    async def submit(command: SettleHold) -> Committed:
        committed = await books.submit(command)
        settled.set()
        return committed

    with capture_logs() as logs:
        loop = asyncio.create_task(recover_regularly(UnsteadyDirectory(tmp_path), submit))
        async with asyncio.timeout(20):
            await settled.wait()
        loop.cancel()
        (ended,) = await asyncio.gather(loop, return_exceptions=True)

    assert isinstance(ended, asyncio.CancelledError)
    assert logs[0]["event"] == "recovery.failed"
