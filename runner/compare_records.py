"""Records before cells: what both sides have, record for record, is never parsed.

Equal raw records cancel each other out, whatever their order; only those are left that one side has more often than
the other. Small files are compared in memory. Of large ones a 64-bit hash of each record is kept on disk, and those
records whose hashes do not stand equally often on both sides are read a second time.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from runner.compare_text import Dialect, Pieces

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Hashes = NDArray[np.int64]

# Files that are smaller than this together are compared in memory.
SMALL = 32 << 20
# Hashes of both sides that are looked at together: 8 bytes each, and five arrays of that size.
AT_ONCE = 1 << 23

Batch = tuple[list[bytes], Sequence[int]]


class Records(Protocol):
    """Raw records that are left of one side; each with the number of cancelled ones before it, its rank.

    `size`: about how many bytes they are. `batches` can be asked for again.
    """

    count: int
    size: int

    def batches(self) -> Iterator[Batch]:
        """Give them in their order."""
        ...


@dataclass(frozen=True)
class Left:
    """What is left of both sides; `kept` records cancelled, in the same order or `reordered`."""

    a: Records
    b: Records
    kept: int
    reordered: bool


class Listed:
    """Records in memory."""

    def __init__(self, records: list[bytes], ranks: Sequence[int]) -> None:
        self._records, self._ranks = records, ranks
        self.count = len(records)
        self.size = sum(map(len, records)) + self.count

    def batches(self) -> Iterator[Batch]:
        """Give them, all at once."""
        if self._records:
            yield self._records, self._ranks


class Source:
    """The records of a file without its header and, where a row has several cells, without blank lines."""

    def __init__(self, file: BinaryIO, dialect: Dialect, *, header: bool, keep_blank: bool) -> None:
        self._pieces = Pieces(file, dialect)
        self._header = header
        self._keep_blank = keep_blank

    @property
    def blank(self) -> int:
        """How many blank lines were seen."""
        return self._pieces.blank

    @property
    def ended(self) -> bool:
        """Whether the last record had a line end."""
        return self._pieces.ended

    def batches(self) -> Iterator[tuple[int, int, list[bytes]]]:
        """Give records with where they stand (offset, length), some thousands at a time."""
        first = True
        for records in self._pieces:
            yield self._pieces.offset, self._pieces.length, self._clean(records, first)
            first = False

    def first(self, count: int) -> list[bytes]:
        """Give the first records, at most so many."""
        return next((records[:count] for _, _, records in self.batches()), [])

    def again(self, offset: int, length: int, *, first: bool) -> list[bytes]:
        """Give a batch once more."""
        return self._clean(self._pieces.again(offset, length), first)

    def _clean(self, records: list[bytes], first: bool) -> list[bytes]:
        if first and self._header:
            del records[:1]
        if not self._keep_blank and b"" in records:
            return [record for record in records if record]
        return records


class Whole:
    """All records of a source, none of them cancelled."""

    def __init__(self, source: Source, check: Callable[[], None]) -> None:
        self._source = source
        self.count = self.size = 0
        for _, length, records in source.batches():
            check()
            self.count += len(records)
            self.size += length

    def batches(self) -> Iterator[Batch]:
        """Give them; each has rank 0."""
        for _, _, records in self._source.batches():
            yield records, bytes(len(records))


def anti_join_small(a: list[bytes], b: list[bytes]) -> Left:
    """Cancel equal records of two lists."""
    if len(a) == len(b):
        at_a = at_b = [at for at, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]
    else:
        start, end = _common_ends(a, b)
        at_a = list(range(start, len(a) - end))
        at_b = list(range(start, len(b) - end))
    reordered = False
    if at_a and at_b:
        reordered, at_a, at_b = _cancel(a, b, at_a, at_b)
    return Left(_listed(a, at_a), _listed(b, at_b), len(a) - len(at_a), reordered)


def _listed(records: list[bytes], places: list[int]) -> Listed:
    return Listed([records[at] for at in places], [at - before for before, at in enumerate(places)])


def _common_ends(a: list[bytes], b: list[bytes]) -> tuple[int, int]:
    """Give how many records both begin with, and how many of the others both end with."""
    shorter = min(len(a), len(b))
    start = next((at for at, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), shorter)
    most = shorter - start
    end = next((n for n, (x, y) in enumerate(zip(reversed(a), reversed(b), strict=False)) if x != y), shorter)
    return start, min(end, most)


def _cancel(a: list[bytes], b: list[bytes], at_a: list[int], at_b: list[int]) -> tuple[bool, list[int], list[int]]:
    """Cancel records at places that differ; give whether those that cancelled, now and before, are reordered."""
    there = {b[at] for at in at_b}
    if there.isdisjoint(a[at] for at in at_a):
        return False, at_a, at_b
    rest_a = _surplus(a, at_a, Counter(b[at] for at in at_b))
    rest_b = _surplus(b, at_b, Counter(a[at] for at in at_a))
    gone_a, gone_b = set(rest_a), set(rest_b)
    kept_a = [record for at, record in enumerate(a) if at not in gone_a]
    kept_b = [record for at, record in enumerate(b) if at not in gone_b]
    return kept_a != kept_b, rest_a, rest_b


def _surplus(records: list[bytes], places: list[int], others: Counter[bytes]) -> list[int]:
    rest = []
    for at in places:
        if others[records[at]] > 0:
            others[records[at]] -= 1
        else:
            rest.append(at)
    return rest


class Hashed:
    """The hashes of a source's records, in a file."""

    def __init__(self, source: Source, path: Path, check: Callable[[], None]) -> None:
        import numpy as np

        self.source = source
        self.table: list[tuple[int, int, int]] = []
        self.count = 0
        self._path = path
        with path.open("wb") as file:
            for offset, length, records in source.batches():
                check()
                # Python's own hash of bytes: SipHash, keyed anew in each process.
                hashes = np.fromiter(map(hash, records), np.int64, len(records))
                file.write(hashes.tobytes())
                self.table.append((offset, length, len(records)))
                self.count += len(records)

    def each(self) -> Iterator[Hashes]:
        """Give the hashes batch by batch."""
        import numpy as np

        with self._path.open("rb") as file:
            for _, _, count in self.table:
                yield np.frombuffer(file.read(8 * count), np.int64)

    def part(self, number: int, parts: int) -> Hashes:
        """Give one of `parts` shares of the hashes."""
        import numpy as np

        if parts == 1:
            return np.fromfile(self._path, np.int64)
        return np.concatenate([hashes[(hashes >> 8) % parts == number] for hashes in self.each()])


class Chosen:
    """Those records of a source whose hashes are among given ones."""

    def __init__(self, hashed: Hashed, wanted: Hashes, check: Callable[[], None]) -> None:
        import numpy as np

        self._hashed = hashed
        self._chosen: list[Hashes] = []
        self._before: list[int] = []
        self.count = self.size = 0
        kept = 0
        digest = hashlib.blake2b()
        for hashes, (_, length, count) in zip(hashed.each(), hashed.table, strict=True):
            check()
            mask = _among(hashes, wanted)
            chosen = np.flatnonzero(mask)
            digest.update(hashes[~mask].tobytes() if len(chosen) else hashes.tobytes())
            self._chosen.append(chosen.astype(np.int32))
            self._before.append(kept)
            kept += count - len(chosen)
            self.count += len(chosen)
            self.size += length * len(chosen) // max(count, 1)
        self.kept = kept
        self.order = digest.digest()

    def batches(self) -> Iterator[Batch]:
        """Read them once more."""
        import numpy as np

        for number, (offset, length, count) in enumerate(self._hashed.table):
            chosen = self._chosen[number]
            if not len(chosen):
                continue
            records = self._hashed.source.again(offset, length, first=number == 0)
            ranks = (self._before[number] + chosen - np.arange(len(chosen))).tolist()
            if len(chosen) < count:
                records = [records[at] for at in chosen.tolist()]
            yield records, ranks


def anti_join_large(a: Source, b: Source, spool: Path, check: Callable[[], None]) -> Left:
    """Cancel equal records of two files of any size; keeps two files in `spool`."""
    import numpy as np

    first, second = Hashed(a, spool / "a.hashes", check), Hashed(b, spool / "b.hashes", check)
    parts = 1 + (first.count + second.count) // AT_ONCE
    found = []
    for number in range(parts):
        check()
        found.append(_unequal(first.part(number, parts), second.part(number, parts)))
    wanted = np.sort(np.concatenate(found))
    rest_a, rest_b = Chosen(first, wanted, check), Chosen(second, wanted, check)
    return Left(rest_a, rest_b, rest_a.kept, rest_a.order != rest_b.order)


def _unequal(a: Hashes, b: Hashes) -> Hashes:
    """Give the hashes, without their last bit, that do not stand equally often in both."""
    import numpy as np

    both = np.concatenate([a & -2, b | 1])
    both.sort()
    if not len(both):
        return both
    values = both >> 1
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    balance = np.add.reduceat(1 - 2 * (both & 1), starts)
    unequal: Hashes = values[starts[balance != 0]]
    return unequal


def _among(hashes: Hashes, wanted: Hashes) -> NDArray[np.bool_]:
    """Tell which hashes are, without their last bit, among sorted ones."""
    import numpy as np

    if not len(wanted):
        return np.zeros(len(hashes), np.bool_)
    values = hashes >> 1
    places = np.searchsorted(wanted, values)
    places[places == len(wanted)] = 0
    found: NDArray[np.bool_] = wanted[places] == values
    return found
