"""The files that units wrote: opened with care, and compared byte by byte."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from runner.compare_walk import first_difference
from runner.errors import RequestError

_BLOCK = 1 << 20


class OutputUnreadable(RequestError):
    """The output cannot be read."""


@dataclass(frozen=True)
class Output:
    """A file that a unit wrote. `name` has its extension, by which it is read; `digest` is of its bytes."""

    path: Path
    name: str
    digest: str | None = None

    @classmethod
    def of(cls, path: Path) -> Output:
        """Take a file by its own name."""
        return cls(path, path.name)


@dataclass(frozen=True)
class File:
    """An open output."""

    name: str
    file: BinaryIO
    size: int
    path: Path


def open_output(output: Output, stack: ExitStack) -> File:
    """Open an output; only a regular file is one, and nobody is waited for."""
    try:
        descriptor = os.open(output.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        file = stack.enter_context(os.fdopen(descriptor, "rb", buffering=0))
        status = os.fstat(descriptor)
    except OSError as error:
        raise OutputUnreadable(f"{output.path} cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise OutputUnreadable(f"{output.path} cannot be read: it is no regular file")
    return File(output.name, file, status.st_size, output.path)


def ended(file: File) -> bool:
    """Tell whether a file's last byte ends a line; an empty one has none to end."""
    if not file.size:
        return True
    file.file.seek(file.size - 1)
    return file.file.read(1) in (b"\n", b"\r")


def mismatch(a: BinaryIO, b: BinaryIO) -> int | None:
    """Give the place of the first byte that differs, None when all are the same."""
    a.seek(0)
    b.seek(0)
    at = 0
    while True:
        block_a, block_b = a.read(_BLOCK), b.read(_BLOCK)
        if block_a != block_b:
            shorter = min(len(block_a), len(block_b))
            if block_a[:shorter] == block_b[:shorter]:
                return at + shorter
            return at + first_difference(block_a[:shorter], block_b[:shorter])
        if not block_a:
            return None
        at += len(block_a)


def unit_of(name: str) -> str:
    """Give the unit that a file's path is the output of: the path without its extension."""
    directory, slash, last = name.rpartition("/")
    return directory + slash + (last.rpartition(".")[0] or last)
