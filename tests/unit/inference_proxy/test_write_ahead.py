"""The write-ahead file: what was put is found whole, whenever its process is killed, and nothing that was freed is."""

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from inference_proxy.write_ahead import (
    FIRST_SLOTS,
    HALF_SIZE,
    HEADER_SIZE,
    MAX_RECORD,
    SLOT_SIZE,
    UNFINISHED_SUFFIX,
    AbandonedFile,
    WriteAheadFile,
    write_ahead_files,
)
from tests.unit.inference_proxy.disks import largest_file, small_disk
from tests.unit.inference_proxy.writing_process import INTENT, SLOTS, intents, record

ROOT = Path(__file__).parents[3]

records = st.binary(min_size=1, max_size=60) | st.integers(1, MAX_RECORD).map(lambda size: b"r" * size)


def taken_of_a_dead_process(path: Path) -> AbandonedFile:
    """Once the lock is free: the system closes the files of a killed process at its leisure, after it is gone."""
    give_up_at = time.monotonic() + 30
    while (file := AbandonedFile.take(path)) is None:
        assert time.monotonic() < give_up_at
        time.sleep(0.01)
    return file


def left_in(path: Path) -> list[bytes]:
    """The records that a recovery would find; the file must be free to be taken, and sound."""
    file = AbandonedFile.take(path)
    assert file is not None
    file.release()
    assert not file.is_damaged
    return sorted(file.records)


def test_what_was_put_is_there_and_what_was_freed_is_not(tmp_path: Path) -> None:
    file = WriteAheadFile.open(tmp_path, 7)
    kept, freed, changed = (file.put(None, each) for each in (b"kept", b"freed", b"first"))
    file.put(changed, b"second")
    file.free(freed)
    file.close()

    assert left_in(file.path) == [b"kept", b"second"]
    assert len({kept, freed, changed}) == 3


def test_a_file_without_a_taken_slot_is_removed_when_it_is_closed(tmp_path: Path) -> None:
    file = WriteAheadFile.open(tmp_path, 7)
    file.free(file.put(None, b"settled"))

    file.close()

    assert list(tmp_path.iterdir()) == []


def test_a_record_that_no_half_can_hold_is_refused_by_its_size_and_takes_no_slot(tmp_path: Path) -> None:
    file = WriteAheadFile.open(tmp_path, 7)
    slot = file.put(None, b"x" * MAX_RECORD)

    for size in (0, MAX_RECORD + 1):
        with pytest.raises(ValueError, match=f"a record of {size} bytes"):
            file.put(None, b"x" * size)
        with pytest.raises(ValueError, match=f"a record of {size} bytes"):
            file.put(slot, b"x" * size)

    file.close()
    assert left_in(file.path) == [b"x" * MAX_RECORD]


def test_a_slot_that_is_not_taken_can_be_neither_put_nor_freed(tmp_path: Path) -> None:
    file = WriteAheadFile.open(tmp_path, 7)
    slot = file.put(None, b"a record")
    file.free(slot)

    with pytest.raises(ValueError, match="is not taken"):
        file.free(slot)
    with pytest.raises(ValueError, match="is not taken"):
        file.put(slot, b"another")

    assert file.put(None, b"a record") != file.put(None, b"another one")
    file.close()


def test_only_its_owner_can_read_it(tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        file = WriteAheadFile.open(tmp_path / "ahead", 7)
    finally:
        os.umask(previous)

    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.path.parent.stat().st_mode & 0o777 == 0o700
    file.close()


def test_a_worker_never_writes_over_a_file_that_another_one_of_its_id_has_left(tmp_path: Path) -> None:
    first = WriteAheadFile.open(tmp_path, 7)
    first.put(None, b"a record")
    first.close()

    with pytest.raises(FileExistsError):
        WriteAheadFile.open(tmp_path, 7)

    assert [first.path] == list(tmp_path.iterdir())
    assert left_in(first.path) == [b"a record"]


def test_what_a_process_left_that_was_killed_while_it_made_its_file_is_removed_by_the_next(tmp_path: Path) -> None:
    with child("begin", tmp_path, 7) as beginner:
        while True:  # until it is met with a file that has no name yet
            assert beginner.poll() is None
            beginner.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, beginner.pid, os.WSTOPPED | os.WNOWAIT)
            if unfinished := list(tmp_path.glob(f"*{UNFINISHED_SUFFIX}")):
                break
            beginner.send_signal(signal.SIGCONT)
            time.sleep(random.random() * 0.01)  # it is stopped at another moment each time, and gets on in between
        beginner.kill()
        beginner.wait()
        assert all(path.exists() for path in unfinished)

    file = WriteAheadFile.open(tmp_path, 8)

    assert list(tmp_path.glob(f"*{UNFINISHED_SUFFIX}")) == []
    file.close()


def test_of_many_that_begin_at_once_each_gets_its_file(tmp_path: Path) -> None:
    """None takes the file of another that is only being made for one that was left."""
    begun = threading.Barrier(8)

    def begin(worker_id: int) -> list[WriteAheadFile]:
        begun.wait()
        return [WriteAheadFile.open(tmp_path, 1000 * n + worker_id) for n in range(20)]

    with ThreadPoolExecutor(8) as threads:
        files = [file for some in threads.map(begin, range(8)) for file in some]

    assert sorted(file.path for file in files) == sorted(tmp_path.iterdir())
    for file in files:
        file.close()


@given(before=st.lists(records, max_size=3), last=st.none() | records, cut=st.integers(0, HALF_SIZE))
def test_a_write_that_is_cut_off_anywhere_leaves_the_record_or_the_one_before(
    before: list[bytes], last: bytes | None, cut: int
) -> None:
    """Torn by hand: the bytes that the write changes, up to the cut, over the file as it was before."""
    with a_directory() as directory:
        file = WriteAheadFile.open(directory, 7)
        slot = None
        for each in before:
            slot = file.put(slot, each)
        as_it_was = file.path.read_bytes()
        if last is not None:
            file.put(slot, last)
        elif slot is not None:
            file.free(slot)
        as_it_became = file.path.read_bytes()
        file.close()
        torn = directory / "torn.wal"
        changed = [n for n, (old, new) in enumerate(zip(as_it_was, as_it_became, strict=True)) if old != new]
        start = changed[0] if changed else 0
        torn.write_bytes(as_it_became[: start + cut] + as_it_was[start + cut :])

        found = left_in(torn)

    assert found in ([last] if last is not None else [], before[-1:])


class OneFile(RuleBasedStateMachine):
    """A write-ahead file and a dict of what is in it."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="tollgate-write-ahead-"))
        self.worker_id = 0
        self.model: dict[int, bytes] = {}
        self.file = WriteAheadFile.open(self.directory, self.worker_id)

    @rule(record=records)
    def put(self, record: bytes) -> None:
        slot = self.file.put(None, record)

        assert slot not in self.model
        self.model[slot] = record

    @rule(number=st.integers(1, 3 * FIRST_SLOTS))
    def put_many(self, number: int) -> None:
        for n in range(number):
            self.put(f"one of many, {n}".encode())

    @precondition(lambda self: self.model)
    @rule(data=st.data(), record=records)
    def put_again(self, data: Any, record: bytes) -> None:
        slot = data.draw(st.sampled_from(sorted(self.model)))

        assert slot == self.file.put(slot, record)
        self.model[slot] = record

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def free(self, data: Any) -> None:
        slot = data.draw(st.sampled_from(sorted(self.model)))
        self.file.free(slot)
        del self.model[slot]

    @rule()
    def sync(self) -> None:
        self.file.sync()

    @rule()
    def end_and_begin_anew(self) -> None:
        self.file.close()

        assert self.file.path.exists() == bool(self.model)
        if self.model:
            assert sorted(self.model.values()) == left_in(self.file.path)
            self.file.path.unlink()
        self.model.clear()
        self.worker_id += 1
        self.file = WriteAheadFile.open(self.directory, self.worker_id)

    @invariant()
    def a_copy_has_all_of_it(self) -> None:
        """What a kill at this moment would leave."""
        copy = Path(shutil.copy(self.file.path, self.directory / "copy"))

        assert sorted(self.model.values()) == left_in(copy)

    def teardown(self) -> None:
        self.file.close()
        shutil.rmtree(self.directory)


TestOneFile = OneFile.TestCase
TestOneFile.settings = settings(max_examples=40, stateful_step_count=20)


@pytest.mark.parametrize("seed", range(5))
def test_a_process_that_is_killed_at_any_moment_leaves_of_each_slot_the_last_record_or_the_one_before(
    tmp_path: Path, seed: int
) -> None:
    noted = intents(tmp_path)
    enough = random.Random(seed).randrange(1, 400)  # records of one slot: from the first growth to long after it

    with child("write", tmp_path, seed) as writer:
        while INTENT.unpack_from(noted, 0)[0] < enough:
            assert writer.poll() is None
        writer.kill()
        writer.wait()

    found = {int(each.split(b" ")[0]): each for each in left_in(tmp_path / f"{seed}.wal")}
    for slot in range(SLOTS):
        (intended,) = INTENT.unpack_from(noted, slot * INTENT.size)
        possible = [record(slot, number) for number in (intended, intended - 1) if number > 0]
        assert found.get(slot) in (possible if intended > 1 else [*possible, None])


def test_a_file_belongs_to_its_process_until_it_ends_and_to_none_of_its_children(tmp_path: Path) -> None:
    with child("own", tmp_path, 7) as owner:
        assert owner.stdout is not None
        grandchild = int(owner.stdout.readline())
        (path,) = write_ahead_files(tmp_path)
        while_it_lives = AbandonedFile.take(path)
        owner.kill()
        owner.wait()
        os.kill(grandchild, 0)  # it lives
        after_its_end = taken_of_a_dead_process(path)
        at_the_same_time = AbandonedFile.take(path)

    assert while_it_lives is None
    assert after_its_end.records == [b"a record"]
    assert at_the_same_time is None
    after_its_end.remove()
    after_its_end.release()
    assert AbandonedFile.take(path) is None


def test_of_many_that_take_a_file_at_once_one_gets_it(tmp_path: Path) -> None:
    """Each removes what it took; nobody takes a file that is removed already, although it was there a moment ago."""
    paths = [tmp_path / f"{number}.wal" for number in range(500)]
    for path in paths:
        path.touch()

    def take_all(_: int) -> list[Path]:
        taken = []
        for path in paths:
            if (file := AbandonedFile.take(path)) is not None:
                file.remove()
                file.release()
                taken.append(path)
        return taken

    with ThreadPoolExecutor(8) as threads:
        by_thread = list(threads.map(take_all, range(8)))

    assert sorted(paths) == sorted(path for taken in by_thread for path in taken)


def test_without_space_no_slot_is_added_and_every_taken_one_goes_on(tmp_path: Path) -> None:
    file = WriteAheadFile.open(tmp_path, 7)
    slots = [file.put(None, b"a record") for _ in range(FIRST_SLOTS)]
    with largest_file(HEADER_SIZE + (FIRST_SLOTS + 1) * SLOT_SIZE):
        with pytest.raises(OSError, match="too large"):
            file.put(None, b"one more")
        for slot in slots:
            file.put(slot, b"x" * MAX_RECORD)
        file.free(slots[0])
        assert slots[0] == file.put(None, b"in the place of another")
        full = left_in(Path(shutil.copy(file.path, tmp_path / "copy")))

    file.put(None, b"there is space again")
    file.close()

    assert sorted([b"in the place of another"] + [b"x" * MAX_RECORD] * (FIRST_SLOTS - 1)) == full
    assert sorted([*full, b"there is space again"]) == left_in(file.path)


def test_without_space_no_file_is_begun_and_nothing_is_left_behind(tmp_path: Path) -> None:
    with largest_file(HEADER_SIZE), pytest.raises(OSError, match="too large"):
        WriteAheadFile.open(tmp_path, 7)

    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_kills_no_process_and_loses_no_record(tmp_path: Path) -> None:
    with small_disk(tmp_path, kilobytes=800) as directory:
        file = WriteAheadFile.open(directory, 7)
        put = [file.put(None, b"a record") for _ in range(2 * FIRST_SLOTS)]
        with pytest.raises(OSError, match="No space left"):
            file.put(None, b"one more")
        disk = os.statvfs(directory)
        (directory / "what was left").write_bytes(b"x" * disk.f_bavail * disk.f_frsize)
        for slot in put:
            file.put(slot, b"x" * MAX_RECORD)
        file.sync()
        file.close()

        assert [b"x" * MAX_RECORD] * len(put) == left_in(file.path)


async def test_what_is_put_while_a_thread_syncs_is_whole(tmp_path: Path) -> None:
    file = WriteAheadFile.open(tmp_path, 7)
    slot = file.put(None, b"first")
    syncing = asyncio.create_task(asyncio.to_thread(file.sync))
    number = 0
    while not syncing.done():
        number += 1
        file.put(slot, b"%d" % number)
        await asyncio.sleep(0)
    await syncing
    file.close()

    assert [b"%d" % number] == left_in(file.path)


@contextmanager
def a_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tollgate-write-ahead-") as name:
        yield Path(name)


@contextmanager
def child(what: str, directory: Path, number: int) -> Iterator[subprocess.Popen[bytes]]:
    module = "tests.unit.inference_proxy.writing_process"
    process = subprocess.Popen(
        [sys.executable, "-m", module, what, str(directory), str(number)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()
