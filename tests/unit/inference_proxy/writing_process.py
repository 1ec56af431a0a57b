"""A process that owns a write-ahead file: ``python -m tests.unit.inference_proxy.writing_process WHAT DIRECTORY ID``.

``write`` puts one record after the other until it is killed; the id is the seed as well. Before each ``put`` it notes
in the file ``intents`` which record the slot is about to get: a number for each slot, in memory that outlives it as
well. ``begin`` makes one file after the other, and ``own`` waits, with a child of its own.
"""

import hashlib
import mmap
import random
import struct
import subprocess
import sys
from pathlib import Path

from inference_proxy.write_ahead import MAX_RECORD, WriteAheadFile

SLOTS = 100  # more than a file begins with, so that some kills meet it growing
INTENT = struct.Struct("<Q")


def record(slot: int, number: int) -> bytes:
    """The slot's record of this number: it says which it is, and is of a length and content that no other one has."""
    filler = hashlib.sha256(f"{slot} {number}".encode()).digest() * (MAX_RECORD // 32)
    return f"{slot} {number} ".encode() + filler[: 40 + (slot + number * 97) % (MAX_RECORD - 100)]


def intents(directory: Path) -> mmap.mmap:
    """By slot, the number of the record that is about to be put, or was."""
    with (directory / "intents").open("a+b") as file:
        file.truncate(SLOTS * INTENT.size)
        return mmap.mmap(file.fileno(), SLOTS * INTENT.size)


def write(directory: Path, seed: int) -> None:
    chance = random.Random(seed)
    noted = intents(directory)
    numbers: dict[int, int] = {}  # of the latest record, by the name that is in it
    slots: dict[int, int] = {}
    file = WriteAheadFile.open(directory, seed)
    while True:
        name = chance.randrange(SLOTS)
        numbers[name] = numbers.get(name, 0) + 1
        next_one = record(name, numbers[name])
        # In one copy: pack_into clears the bytes first, and a kill in between would leave a number that never was.
        noted[name * INTENT.size : (name + 1) * INTENT.size] = INTENT.pack(numbers[name])
        slots[name] = file.put(slots.get(name), next_one)


def begin(directory: Path, worker_id: int) -> None:
    while True:
        WriteAheadFile.open(directory, worker_id).close()


def own(directory: Path, seed: int) -> None:
    """Have a file with a record, and a child that was given every descriptor that may be given on."""
    WriteAheadFile.open(directory, seed).put(None, b"a record")
    child = subprocess.Popen([sys.executable, "-c", "input()"], close_fds=False, stdin=subprocess.PIPE)
    sys.stdout.write(f"{child.pid}\n")
    sys.stdout.flush()
    child.wait()


if __name__ == "__main__":
    {"write": write, "begin": begin, "own": own}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
