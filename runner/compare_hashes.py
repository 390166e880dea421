"""Records before cells in files of any size: by hashes of all records, of which those are read again that differ.

Of each record a 64-bit hash is kept on disk. Records whose hashes do not stand equally often on both sides are left.
"""

from __future__ import annotations

import json
import os
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Never

from runner.compare_records import SMALL, Batch, Left, Source, anti_join_small
from runner.compare_walk import Walk

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Hashes = NDArray[np.uint64]

# Hashes of both sides that are sorted together, 8 bytes each; of more, one share is taken after the other.
AT_ONCE = 1 << 26
# Hashes that are looked at together, as they fit into a processor's cache.
_BLOCK = 1 << 16
# Sorted hashes are compared in stretches of about so many.
_STRETCH = 1 << 11


def anti_join_large(a: Source, b: Source, spool: Callable[[], Path], check: Callable[[], None]) -> Left:
    """Cancel equal records of two files of any size; keeps some files in the directory `spool`."""
    passed = 0
    if a.dialect.newline == b.dialect.newline != b"\r":
        walk = Walk((a.file, a.start, a.end), (b.file, b.start, b.end), a.dialect, check, keep_blank=a.keep_blank)
        a.narrow(walk.left_a)
        b.narrow(walk.left_b)
        passed = walk.kept
    if a.size + b.size <= SMALL:
        (all_a, ranks_a), (all_b, ranks_b) = _all(a), _all(b)
        left = anti_join_small(all_a, all_b, (ranks_a, ranks_b))
        return replace(left, kept=left.kept + passed)
    first, second = hash_both(a, b, spool(), check)
    wanted = _wanted(first, second, check)
    rest_a, rest_b = Chosen(first, wanted, check), Chosen(second, wanted, check)
    return Left(rest_a, rest_b, rest_a.kept + passed, not _in_order(rest_a, rest_b))


def _all(source: Source) -> tuple[list[bytes], list[int]]:
    records: list[bytes] = []
    ranks: list[int] = []
    for piece in source.pieces():
        records += piece.records
        ranks += [piece.rank] * len(piece.records)
    return records, ranks


# ---- the hashes of one side -------------------------------------------------------------------------------


class Hashed:
    """The hashes of a source's records, in a file; `table` tells where each piece of the source stands."""

    def __init__(self, source: Source, path: Path) -> None:
        """Take what `write_hashes` wrote."""
        self.source = source
        self._path = path
        source.blank, self.table = json.loads(_table_of(path).read_bytes())
        self.count: int = sum(count for _, _, _, count in self.table)

    def each(self) -> Iterator[Hashes]:
        """Give the hashes piece by piece."""
        import numpy as np

        with self._path.open("rb") as file:
            for _, _, _, count in self.table:
                yield np.fromfile(file, np.uint64, count)

    def blocks(self) -> Iterator[Hashes]:
        """Give the hashes, many at a time."""
        import numpy as np

        with self._path.open("rb") as file:
            while len(hashes := np.fromfile(file, np.uint64, _BLOCK)):
                yield hashes

    def part(self, number: int, bits: int) -> Hashes:
        """Give those hashes, sorted, whose first bits are a number."""
        import numpy as np

        if bits:
            shift = np.uint64(64 - bits)
            blocks = [hashes[hashes >> shift == number] for hashes in self.blocks()]
            found = np.concatenate([np.empty(0, np.uint64), *blocks])
        else:
            found = np.fromfile(self._path, np.uint64)
        found.sort()
        return found


def write_hashes(source: Source, path: Path, check: Callable[[], None]) -> None:
    """Write the hashes of a source's records into a file, and the table of its pieces beside it."""
    table = []
    with path.open("wb") as file:
        for offset, length, rank, records in source.pieces():
            check()
            # Python's own hash of bytes: SipHash, keyed anew in each process and the same in its forks.
            file.write(struct.pack(f"{len(records)}q", *map(hash, records)))
            if records:
                table.append((offset, length, rank, len(records)))
    _table_of(path).write_text(json.dumps([source.blank, table]))


def _table_of(path: Path) -> Path:
    return path.with_suffix(".json")


class Apart:
    """A process that hashes one side; what it cannot do is done here, so that its errors are raised here too."""

    def __init__(self, source: Source, path: Path, check: Callable[[], None]) -> None:
        self._source, self._path, self._check = source, path, check
        self._process: int | None = None
        ours = os.getpid()
        with suppress(OSError):  # no more processes are allowed
            self._process = os.fork()
        if self._process == 0:
            self._work(ours)

    def _work(self, parent: int) -> Never:
        def check() -> None:
            self._check()
            if os.getppid() != parent:
                os._exit(1)

        try:
            write_hashes(self._source, self._path, check)
            os._exit(0)
        finally:
            os._exit(1)

    def result(self) -> Hashed:
        """Wait for what it wrote."""
        status = 1
        if self._process is not None:
            _, status = os.waitpid(self._process, 0)
            self._process = None
        if status:
            write_hashes(self._source, self._path, self._check)
        return Hashed(self._source, self._path)

    def end(self) -> None:
        """End it if it is still at work; safe to call twice."""
        process, self._process = self._process, None
        if process is not None:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)


def hash_both(a: Source, b: Source, spool: Path, check: Callable[[], None]) -> tuple[Hashed, Hashed]:
    """Hash both sides at the same time."""
    first, second = Apart(a, spool / "a.hashes", check), Apart(b, spool / "b.hashes", check)
    try:
        import numpy as np  # noqa: F401 - it takes its time, which is to be had now

        return first.result(), second.result()
    finally:
        first.end()
        second.end()


# ---- what differs -----------------------------------------------------------------------------------------


def _wanted(a: Hashed, b: Hashed, check: Callable[[], None]) -> Hashes:
    """Give the hashes, sorted, that do not stand equally often on both sides."""
    import numpy as np

    bits = ((a.count + b.count) // AT_ONCE).bit_length()
    found: list[Hashes] = []
    for number in range(1 << bits):
        check()
        found += unequal(a.part(number, bits), b.part(number, bits))
    return np.concatenate([np.empty(0, np.uint64), *found])


def unequal(a: Hashes, b: Hashes) -> Iterator[Hashes]:
    """Give the hashes that do not stand equally often in two sorted arrays."""
    import numpy as np

    longer = a if len(a) > len(b) else b
    cuts = longer[_STRETCH::_STRETCH]
    parts = (np.split(side, np.searchsorted(side, cuts)) for side in (a, b))
    for x, y in zip(*parts, strict=True):
        if not np.array_equal(x, y):
            yield _unbalanced(x, y)


def _unbalanced(a: Hashes, b: Hashes) -> Hashes:
    import numpy as np

    both = np.concatenate([a, b])
    order = both.argsort()
    both = both[order]
    starts = np.flatnonzero(np.append(True, both[1:] != both[:-1]))
    balance = np.add.reduceat(np.where(order < len(a), 1, -1), starts)
    unequal: Hashes = both[starts[balance != 0]]
    return unequal


class Chosen:
    """Those records of a source whose hashes are among given, sorted ones."""

    def __init__(self, hashed: Hashed, wanted: Hashes, check: Callable[[], None]) -> None:
        import numpy as np

        self._hashed = hashed
        # Most hashes are told apart from the wanted ones by their first bits alone.
        shift = np.uint64(48)
        near = np.zeros(1 << 16, np.bool_)
        near[wanted >> shift] = True
        self._mask = np.zeros(hashed.count, np.bool_)
        before = 0
        for hashes in hashed.blocks():
            check()
            places = np.flatnonzero(near[hashes >> shift])
            self._mask[before + places[_among(hashes[places], wanted)]] = True
            before += len(hashes)
        _, lengths, passed, counts = np.array(hashed.table, np.int64).reshape(-1, 4).T
        self._starts = np.cumsum(counts) - counts
        self._chosen = np.add.reduceat(self._mask, self._starts, dtype=np.int64)
        # How many common records stand before a piece: in what both sides had passed, and in the pieces before it.
        self._before = passed + self._starts - (np.cumsum(self._chosen) - self._chosen)
        self.count = int(self._chosen.sum())
        self.size = int((lengths * self._chosen // counts).sum())
        self.kept = hashed.count - self.count

    def batches(self) -> Iterator[Batch]:
        """Read them once more."""
        import numpy as np

        for number in np.flatnonzero(self._chosen).tolist():
            offset, length, _, count = self._hashed.table[number]
            places = np.flatnonzero(self._mask_of(number))
            ranks = self._before[number] + places - np.arange(len(places))
            records = self._hashed.source.again(offset, length)
            if len(places) < count:
                records = [records[at] for at in places.tolist()]
            yield records, ranks.tolist()

    def cancelled(self) -> Iterator[Hashes]:
        """Give the hashes of the others in their order, each with the number of those passed before mixed in."""
        import numpy as np

        for number, hashes in enumerate(self._hashed.each()):
            others = hashes[~self._mask_of(number)] if self._chosen[number] else hashes
            if len(others):
                yield others ^ np.uint64(self._hashed.table[number][2] << 20)

    def _mask_of(self, number: int) -> NDArray[np.bool_]:
        start = self._starts[number]
        return self._mask[start : start + self._hashed.table[number][3]]


def _among(hashes: Hashes, wanted: Hashes) -> NDArray[np.bool_]:
    """Tell which hashes are among sorted ones."""
    import numpy as np

    places = np.searchsorted(wanted, hashes)
    places[places == len(wanted)] = 0
    found: NDArray[np.bool_] = wanted[places] == hashes
    return found


def _in_order(a: Chosen, b: Chosen) -> bool:
    """Tell whether what cancelled comes in the same order on both sides."""
    import numpy as np

    none = np.empty(0, np.uint64)
    others_a, others_b = a.cancelled(), b.cancelled()
    x = y = none
    while True:
        x = x if len(x) else next(others_a, none)
        y = y if len(y) else next(others_b, none)
        count = min(len(x), len(y))
        if not count:
            return len(x) == len(y)
        if not np.array_equal(x[:count], y[:count]):
            return False
        x, y = x[count:], y[count:]
