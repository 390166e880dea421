"""Which worker of a pool this is on its host: a number that nobody else has while it, or a slot of it, lives."""

from __future__ import annotations

import fcntl
import itertools
import os
from dataclasses import dataclass
from pathlib import Path

DIRECTORY = "workers"


@dataclass(frozen=True)
class Instance:
    """A number among the workers of a pool on this host, from 1 on.

    It is held by an open file: whoever inherits `descriptor` holds it too, and the kernel gives it back when the last
    of them has ended, however that was.
    """

    pool: str
    number: int
    descriptor: int

    def slot(self, slot: int) -> str:
        """Name one of its slots: no other on this host has that name."""
        return slot_name(self.pool, self.number, slot)


def slot_name(pool: str, instance: int, slot: int) -> str:
    """Name a slot among all on its host."""
    return f"{pool}-{instance}-{slot}"


def take_instance(home: Path, pool: str) -> Instance:
    """Take the lowest number that is free; one whose worker died gets its names anew, so that nothing of it stays."""
    for number in itertools.count(1):
        descriptor = _lock(home, pool, number)
        if descriptor is not None:
            return Instance(pool, number, descriptor)
    raise AssertionError("numbers do not end")


def is_alive(home: Path, pool: str, number: int) -> bool:
    """Tell whether a worker, or a slot of it, holds a number."""
    descriptor = _lock(home, pool, number)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def _lock(home: Path, pool: str, number: int) -> int | None:
    directory = home / DIRECTORY
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory / f"{pool}-{number}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
