"""The write-ahead file of a process: what would have to be settled if the process died now.

One file for each process: a page that says what it is, then slots of a page each, mapped into memory. What was copied
there belongs to the kernel, so that it survives the process however it ends; after ``sync`` it survives the machine.

A slot holds the latest record of one request, in two halves that are written in turn: whoever is killed in the middle
of a copy leaves the record before it intact. A half is the CRC-32 of all that follows, a sequence number, a length and
the record; the half that is whole and has the higher number counts. An empty record says that the slot is free.

The owner holds a lock on its file, which the kernel lets go of when the process ends: a file whose lock is free was
abandoned, and whoever takes the lock is the only one to settle from it.
"""

import fcntl
import mmap
import os
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: How the names of write-ahead files end, of those that are only being made, and of those that were set aside because
#: they are damaged.
SUFFIX = ".wal"
UNFINISHED_SUFFIX = ".new"
BROKEN_SUFFIX = ".broken"

#: The number goes up with any change of the layout, so that no file is read as what it is not.
_MAGIC = b"tollgate write-ahead file 1\n"
_HEADER = struct.Struct(f"<{len(_MAGIC)}sI")  # magic, slots
_CRC = struct.Struct("<I")
_NUMBERED = struct.Struct("<QI")  # sequence number from 1, length of the record

HEADER_SIZE = 4096
SLOT_SIZE = 4096  # a page, which a disk is most likely to write whole
HALF_SIZE = SLOT_SIZE // 2
_PREFIX_SIZE = _CRC.size + _NUMBERED.size
MAX_RECORD = HALF_SIZE - _PREFIX_SIZE
#: What a process begins with; whenever all are taken, their number doubles.
FIRST_SLOTS = 64


class WriteAheadFile:
    """The file of this process. All but ``sync`` belong to one thread."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._map = _mapped(fd, FIRST_SLOTS)
        self._sequences = [0] * FIRST_SLOTS  # by slot, of its latest record
        self._free = list(reversed(range(FIRST_SLOTS)))
        self._taken: set[int] = set()

    @classmethod
    def open(cls, directory: Path, worker_id: int) -> "WriteAheadFile":
        """A new file, locked; the directory is made when it is not there. Only their owner can read them, because
        they tell who used what.

        Raises FileExistsError when a worker of this id has left a file, and OSError when there is no space for it.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _one_beginner(directory) as names:
            for left in directory.glob(f"*{UNFINISHED_SUFFIX}"):  # by a process that was killed just here
                left.unlink()
            # It gets its name when it is locked and whole: a recovery never sees a file that is only being made.
            fd, unfinished = tempfile.mkstemp(dir=directory, suffix=UNFINISHED_SUFFIX)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                file = cls(directory / f"{worker_id}{SUFFIX}", fd)
                os.link(unfinished, file.path)
                os.fsync(names)  # without a name on the disk it would not be found after the machine lost its power
            except BaseException:
                os.close(fd)
                raise
            finally:
                os.unlink(unfinished)
        return file

    def put(self, slot: int | None, record: bytes) -> int:
        """Make this the record of a slot, or of a free one for None; returns the slot.

        Never fails for lack of space in a slot that is taken. Raises OSError when all are taken and the file cannot
        grow, and ValueError for a record that no half can hold or a slot that is not taken; then all is as before.
        """
        if not 0 < len(record) <= MAX_RECORD:
            raise ValueError(f"a record of {len(record)} bytes; 1 to {MAX_RECORD} can be written ahead")
        if slot is None:
            if not self._free:
                self._grow()
            slot = self._free.pop()
            self._taken.add(slot)
        elif slot not in self._taken:
            raise ValueError(f"slot {slot} is not taken")
        self._write(slot, record)
        return slot

    def free(self, slot: int) -> None:
        """Forget the slot's record: nothing of it is left to settle. Raises ValueError for a slot that is not taken."""
        if slot not in self._taken:
            raise ValueError(f"slot {slot} is not taken")
        self._write(slot, b"")
        self._taken.remove(slot)
        self._free.append(slot)

    def sync(self) -> None:
        """Return once all that was put is on the disk. Blocks; for a thread, which ends before ``close``."""
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Let go of the file; without a taken slot it is removed, else it is left to be recovered."""
        if self._taken:
            self.sync()
        else:
            os.unlink(self.path)
        self._map.close()
        os.close(self._fd)

    def _write(self, slot: int, record: bytes) -> None:
        sequence = self._sequences[slot] = self._sequences[slot] + 1
        start = HEADER_SIZE + slot * SLOT_SIZE + (sequence & 1) * HALF_SIZE
        numbered = _NUMBERED.pack(sequence, len(record)) + record
        half = _CRC.pack(zlib.crc32(numbered)) + numbered
        self._map[start : start + len(half)] = half

    def _grow(self) -> None:
        before = len(self._sequences)
        grown = _mapped(self._fd, 2 * before)
        self._map.close()
        self._map = grown
        self._sequences += [0] * before
        self._free += reversed(range(before, 2 * before))


class AbandonedFile:
    """The write-ahead file of a process that ended, locked by us: its records, and whether it is damaged."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        self.records, self.is_damaged = _read(fd)

    @classmethod
    def take(cls, path: Path) -> "AbandonedFile | None":
        """None when its owner lives, or another process has taken it. Raises OSError when it cannot be read."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between our two calls another process may have settled all of it, and removed it.
            if os.path.samestat(os.stat(path), os.fstat(fd)):
                return cls(path, fd)
        except (BlockingIOError, FileNotFoundError):
            pass
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return None

    def remove(self) -> None:
        """All of it is settled."""
        os.unlink(self.path)

    def set_aside(self) -> Path:
        """Rename it, so that nobody recovers it again and somebody can look into it; returns its new path."""
        return self.path.rename(self.path.with_suffix(BROKEN_SUFFIX))

    def release(self) -> None:
        """Let go of it; unless it was removed or set aside, it is there to be taken again."""
        os.close(self._fd)


def write_ahead_files(directory: Path) -> list[Path]:
    """Those of the living and the dead; none when there is no such directory."""
    return sorted(directory.glob(f"*{SUFFIX}"))


def _mapped(fd: int, slots: int) -> mmap.mmap:
    """The file, enlarged to so many slots, in memory. Raises OSError, the file as it was, when there is no space."""
    size_before, size = os.fstat(fd).st_size, HEADER_SIZE + slots * SLOT_SIZE
    try:
        # Space that is only promised would be missed in the middle of a copy, and kill the process with SIGBUS.
        os.posix_fallocate(fd, 0, size)
        mapped = mmap.mmap(fd, size)
    except OSError:
        with suppress(OSError):
            os.ftruncate(fd, size_before)  # what it did get is of use to others
        raise
    _HEADER.pack_into(mapped, 0, _MAGIC, slots)
    return mapped


def _read(fd: int) -> tuple[list[bytes], bool]:
    """The record of every slot that has one, and whether anything is there that no process leaves, killed or not."""
    header = os.pread(fd, _HEADER.size, 0).ljust(_HEADER.size, b"\0")
    magic, slots = _HEADER.unpack(header)
    size = os.fstat(fd).st_size
    is_damaged = magic != _MAGIC or size < HEADER_SIZE + slots * SLOT_SIZE
    records = []
    for start in range(HEADER_SIZE, size, SLOT_SIZE):
        slot = os.pread(fd, SLOT_SIZE, start)
        halves = slot[:HALF_SIZE], slot[HALF_SIZE:]
        whole = [numbered for half in halves if (numbered := _whole(half)) is not None]
        if whole and (record := max(whole)[1]):
            records.append(record)
        # One half may have been torn by a kill; then the other one is whole, or was never written.
        is_damaged |= not whole and all(any(half) for half in halves)
    return records, is_damaged


def _whole(half: bytes) -> tuple[int, bytes] | None:
    """(sequence number, record) of a half; None when it was not written, or not to its end."""
    if len(half) < _PREFIX_SIZE:
        return None
    (crc,) = _CRC.unpack_from(half)
    sequence, length = _NUMBERED.unpack_from(half, _CRC.size)
    end = _PREFIX_SIZE + length
    if end > len(half) or crc != zlib.crc32(half[_CRC.size : end]):
        return None
    return sequence, half[_PREFIX_SIZE:end]


@contextmanager
def _one_beginner(directory: Path) -> Iterator[int]:
    """A descriptor of the directory while nobody else begins a file in it: what is unfinished there is of the dead."""
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)
